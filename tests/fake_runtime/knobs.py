"""The settings of a fake runtime: speeds and faults. From the command line, or from FAKE_RUNTIME="name=value,...".

The command line wins. It refuses names it does not know, because a misspelt fault would be a test that proves nothing.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Knobs:
    """Counts of tokens are over the life of the process; 0 is off."""

    prefill_tps: float = 0.0  # prompt tokens computed in a second; 0 takes no time
    t1_s: float = 0.0  # a decode step of one row
    beta: float = 0.0  # what each further row adds to a step, as a share of t1_s
    kappa: float = 0.0  # seconds each token in the KV cache adds to a step
    load_s: float = 0.0
    slow: float = 1.0  # factor on all of the above
    max_rows: int = 0  # narrower than what `load` asks for
    context: int = 0  # another context length than the folder's
    eos_after: int = 0  # the N-th token of every answer is the folder's first end-of-sequence id
    exit_after: int = 0  # end the process once N tokens are sent
    exit_status: int = 1
    hang_after: int = 0  # the engine thread stops for good once N tokens are sent
    garbage_after: int = 0  # one frame that is not msgpack once N tokens are sent
    truncate_after: int = 0  # half a frame, then the end, once N tokens are sent
    crash_token: int = 0  # SIGABRT when a prompt holds this id
    fail_token: int = 0  # the model call raises when a prompt holds this id
    lie_after: int = 0  # once N tokens are sent, all that follow are wrong, in frames that are right
    wrong_count: int = 0  # added to `generated` in the last frame of every row


def parse(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[str, Knobs]:
    """The socket's path and the settings. Ends the process on a name or a value it cannot use."""
    parser = argparse.ArgumentParser(prog="fake_runtime", description=__doc__)
    parser.add_argument("--socket", required=True)
    for knob in fields(Knobs):
        parser.add_argument(f"--{knob.name.replace('_', '-')}", dest=knob.name, type=int if knob.type is int else float)
    from_environment: list[str] = []
    for pair in filter(None, environment.get("FAKE_RUNTIME", "").split(",")):
        name, _, value = pair.partition("=")
        from_environment += [f"--{name.strip().replace('_', '-')}", value.strip()]
    chosen = vars(parser.parse_args([*from_environment, *argv]))
    path = str(chosen.pop("socket"))
    return path, Knobs(**{name: value for name, value in chosen.items() if value is not None})
