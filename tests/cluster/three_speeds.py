"""A room of three nodes with fake runtimes, each half as fast as the one before.

Owns their constants and the stream that is asked of them. Steps are long and rows few, so that what the processes
themselves take on a small machine is little beside what the fakes wait for.
"""

from __future__ import annotations

from cluster.harness import Room
from cluster.prediction import Pace, Plan, Stream

NAMES = ("fast", "middle", "slow")
SLOTS = 4
STREAM = Stream(seconds=25.0, per_s=3.0, prompts=(64, 900), outputs=(4, 28))


def pace(slower: float) -> Pace:
    """The fastest is like an 8B model on a large Mac."""
    return Pace(t1_s=0.03 * slower, beta=0.3, prefill_tps=2_000 / slower, kappa=2e-6 * slower)


PLAN = Plan([[pace(1)], [pace(2)], [pace(4)]], SLOTS)


def start(room: Room) -> None:
    """One after another, so that they are numbered as in the plan."""
    room.coordinator()
    for number, (name, paces) in enumerate(zip(NAMES, PLAN.nodes, strict=True), 1):
        room.agent(name, "demo", fake=paces[0].knobs(), more=["--slots", str(SLOTS)])
        room.ready(nodes=number)
