"""The room of fake runtimes with three speeds, whose constants are known because they were set."""

from __future__ import annotations

from pathlib import Path

from cluster.harness import Room
from cluster.prediction import Round, added_alone, at_load, measure, predict
from cluster.three_speeds import NAMES, PLAN, STREAM, start

LOAD = 0.7
SECONDS = 60.0


def play(folder: Path, seed: int) -> Round:
    """One round. The constants are set; what surrounds them is part of what is measured."""
    asked = at_load(folder, PLAN, STREAM.lasting(SECONDS), LOAD, seed)
    predicted, load = predict(folder, PLAN, asked)
    room = Room(folder)
    try:
        start(room)
        measured = measure(room, asked, NAMES)
        added_ms = added_alone(room, PLAN, NAMES) * 1e3
        return Round(measured, predicted, load, f"{added_ms:.1f} ms added to a request that is alone")
    finally:
        room.close()
