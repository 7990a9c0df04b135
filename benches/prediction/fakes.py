"""The room of fake runtimes with three speeds, whose constants are known because they were set."""

from __future__ import annotations

from pathlib import Path

from cluster.harness import Room
from cluster.prediction import Figures, added_alone, at_load, measure, predict
from cluster.three_speeds import NAMES, PLAN, STREAM, start

LOAD = 0.7
SECONDS = 60.0


def play(folder: Path, seed: int) -> tuple[Figures, Figures, float, float]:
    """Measured, predicted, the load asked for, what is added to a request alone."""
    asked = at_load(folder, PLAN, STREAM.lasting(SECONDS), LOAD, seed)
    predicted, load = predict(folder, PLAN, asked)
    room = Room(folder)
    try:
        start(room)
        measured = measure(room, asked, NAMES)
        return measured, predicted, load, added_alone(room, PLAN, NAMES)
    finally:
        room.close()
