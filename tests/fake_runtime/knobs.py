"""The settings of a fake runtime: speeds and faults. From the command line, from FAKE_RUNTIME="name=value,...", or from
a file that may change while it runs.

The file wins over the command line, which wins over the environment. It refuses names it does not know, because a
misspelt fault would be a test that proves nothing; in the file, that ends the process.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from mlx_runtime.errors import Code

_CODES: Final = [code.value for code in Code]
_WORDS: Final = {"load_fault": ["hang", "abort", *_CODES], "refuse": _CODES}


@dataclass(frozen=True, slots=True)
class Knobs:
    """0, or no word, is off.

    A fault `after` N tokens counts all that the process has sent in its life; with a `mark_token`, what a row with that
    mark has sent. What another row sent of an answer counts for `eos_after` alone.
    A process that ends itself sends first what it has.
    """

    prefill_tps: float = 0.0  # prompt tokens computed in a second; 0 takes no time
    t1_s: float = 0.0  # a decode step of one row
    beta: float = 0.0  # what each further row adds to a step, as a share of t1_s
    kappa: float = 0.0  # seconds each token in the KV cache adds to a step
    load_s: float = 0.0
    slow: float = 1.0  # factor on all of the above
    max_rows: int = 0  # narrower than what `load` asks for
    context: int = 0  # another context length than the folder's
    spelled: int = 0  # answers are spelled byte by byte: characters and stop strings are split over tokens
    eos_after: int = 0  # the N-th token of every answer is the folder's first end-of-sequence id
    load_fault: str = ""  # `load` stops for good without a sign of life ("hang"), aborts, or fails with this code
    crash_token: int = 0  # SIGABRT when the ids of a row hold this one
    fail_token: int = 0  # the model call raises when the ids of a row hold this one
    once: int = 0  # the first fault takes the knobs' file away, for all runtimes that read it: none follows
    mark_token: int = 0  # all that follows touches only rows whose prompt holds this id
    refuse: str = ""  # rows end with this code before they start
    slow_after: int = 0  # decode steps take longer once N tokens are sent,
    slow_factor: float = 10.0  # so many times as long
    fail_after: int = 0  # the model call raises once N tokens are sent
    hang_after: int = 0  # the engine thread stops for good once N tokens are sent
    exit_after: int = 0  # end the process once N tokens are sent
    exit_status: int = 1
    abort_after: int = 0  # SIGABRT once N tokens are sent
    truncate_after: int = 0  # half a frame, then the end, once N tokens are sent
    garbage_after: int = 0  # one frame that is not msgpack once N tokens are sent
    lie_after: int = 0  # once N tokens are sent, all that follow are wrong, in frames that are right
    outside_after: int = 0  # once N tokens are sent, all that follow are ids the vocabulary does not have
    skip_at: int = 0  # the N-th token of a row is not sent
    repeat_at: int = 0  # the N-th token of a row is sent twice
    ghosts: int = 0  # a row is named once more after its end, with a token
    wrong_count: int = 0  # added to `generated` in the last frame of a row
    lose_end: int = 0  # the last token of a row is sent as if more would come; then the row fails


class Switches:
    """The knobs as they are now."""

    def __init__(self, fixed: Knobs, file: Path | None = None, struck: Path | None = None) -> None:
        """`struck`: a file that is made once a fault has come about, for whoever counts them."""
        self._fixed = self._now = fixed
        self._file = file
        self._struck = struck
        self._seen: tuple[int, ...] = ()

    def now(self) -> Knobs:
        """With what the file says over the rest; no file says nothing. To change it, put another in its place."""
        if self._file is None:
            return self._fixed
        try:
            found = self._file.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                told = _parser().parse_args(_arguments(self._file.read_text(encoding="utf-8")))
                self._now, self._seen = replace(self._fixed, **_set(told)), seen
        except FileNotFoundError:
            self._now, self._seen = self._fixed, ()
        return self._now

    def strike(self) -> bool:
        """Whether a fault that is due may come. Where one is all that may, whoever takes the file away has it."""
        if self._file is not None and self._now.once:
            try:
                self._file.unlink()
            except FileNotFoundError:
                return False
        if self._struck is not None:
            self._struck.touch()
        return True


def parse(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[str, Switches]:
    """The socket's path and the settings. Ends the process on a name or a value it cannot use."""
    parser = _parser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--file", type=Path)
    told = parser.parse_args([*_arguments(environment.get("FAKE_RUNTIME", "")), *argv])
    path, file = vars(told).pop("socket"), vars(told).pop("file")
    struck = environment.get("FAKE_STRUCK")
    return str(path), Switches(Knobs(**_set(told)), file, Path(struck) if struck else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fake_runtime", description=__doc__, allow_abbrev=False)
    for knob in fields(Knobs):
        kind: Any = knob.type
        parser.add_argument(f"--{knob.name.replace('_', '-')}", type=kind, choices=_WORDS.get(knob.name))
    return parser


def _arguments(pairs: str) -> list[str]:
    split = [pair.partition("=") for pair in pairs.replace("\n", ",").split(",") if pair.strip()]
    return [f"--{name.strip().replace('_', '-')}={value.strip()}" for name, _, value in split]


def _set(told: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(told).items() if value is not None}
