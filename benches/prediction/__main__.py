"""Is the simulator right about the mean time to the first token? `PYTHONPATH=tests PYTHON benches/prediction [--real]`

Owns the rounds and the verdict: each round starts a new room, draws another stream, sends it and asks the simulator for
the same; what is added to a request that is alone is the control. A room with fake runtimes of three
speeds is known from its settings; with `--real` three models of real MLX share the memory for two, and their speeds are
measured just before each round. Ends with 1 unless the median round is within a quarter of what was predicted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fakes
import real

from cluster.prediction import Figures, as_json

AGREEMENT = 0.25
"""How far the mean time to the first token may be from what was predicted."""


@dataclass(frozen=True)
class Round:
    """What one room did, what was predicted of it, and what is added to a request that is alone there."""

    measured: Figures
    predicted: Figures
    load: float
    added_s: float

    @property
    def ratio(self) -> float:
        """Measured by predicted."""
        return self.measured.ttft_s["mean"] / self.predicted.ttft_s["mean"]


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="benches/prediction", description=__doc__)
    parser.add_argument("--real", action="store_true", help="three models of real MLX in room for two")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    play: Callable[[Path, int], tuple[Figures, Figures, float, float]] = real.play if options.real else fakes.play
    rounds: list[Round] = []
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(Round(*play(Path(folder), options.seed + number - 1)))
        tell(number, rounds[-1])
    if options.json:
        options.json.write_text(
            as_json(
                {
                    f"{at} {side}": getattr(one, side)
                    for at, one in enumerate(rounds, 1)
                    for side in ("measured", "predicted")
                }
            )
        )
    ratios = [one.ratio for one in rounds]
    print(f"measured / predicted: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    return 0 if abs(statistics.median(ratios) - 1.0) <= AGREEMENT else 1


def tell(number: int, one: Round) -> None:
    """One round for people. The machine's load says how far a round is to be trusted."""
    busy, _, _ = os.getloadavg()
    alone = f"{one.added_s * 1e3:.1f} ms added alone"
    print(f"round {number}: ratio {one.ratio:.3f}, asked load {one.load:.2f}, {alone}, {busy:.1f} processes at work")
    print(f"  measured  {one.measured.line()}")
    print(f"  predicted {one.predicted.line()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
