"""Is the simulator right about the mean time to the first token? `PYTHONPATH=tests PYTHON benches/prediction [--real]`

Owns the rounds and the verdict: each round starts a new room, draws another stream, sends it and asks the simulator for
the same. A room with fake runtimes of three speeds is known from its settings; with `--real` three models of real MLX
share the memory for two, and their speeds are measured just before each round. Each round has a control, which does not
look at the stream: a round in which the machine itself was not the same at the end as at the beginning is told and does
not count. Ends with 1 unless the median of the rounds that count is within a quarter of what was predicted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import fakes
import real

from cluster.prediction import Round, as_json

# How far the mean time to the first token may be from what was predicted.
AGREEMENT = 0.25


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="benches/prediction", description=__doc__)
    parser.add_argument("--real", action="store_true", help="three models of real MLX in room for two")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one has the next")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    play = real.play if options.real else fakes.play
    rounds: list[Round] = []
    for seed in range(options.seed, options.seed + options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(play(Path(folder), seed))
        tell(seed, rounds[-1])
    if options.json:
        options.json.write_text(as_json(rounds))
    ratios = [one.ratio for one in rounds if one.steady]
    if not ratios:
        print("the machine was never steady")
        return 1
    median = statistics.median(ratios)
    print(f"measured / predicted: median {median:.3f}, {min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} rounds")
    return 0 if abs(median - 1.0) <= AGREEMENT else 1


def tell(seed: int, one: Round) -> None:
    """One round for people. The machine's load says how far a round is to be trusted."""
    busy, _, _ = os.getloadavg()
    does_not = "" if one.steady else " (does not count)"
    print(f"seed {seed}: ratio {one.ratio:.3f}{does_not}, asked load {one.load:.2f}, {busy:.1f} processes at work")
    print(f"  control   {one.control}")
    print(f"  measured  {one.measured.line()}")
    print(f"  predicted {one.predicted.line()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
