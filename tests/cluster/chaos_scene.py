"""The table of faults, and what a fault gets hold of.

Owns what a fault says of itself, so that the campaign can tell what it excuses; the faults are in `chaos_faults` and
`chaos_group_faults`. Refuses two faults of one name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from cluster.chaos_room import ChaosRoom, ended
from cluster.group import Coordinator
from cluster.harness import Process, until
from cluster.witness import Witness

Course = Generator[None]
# A runtime that was killed is back, and has computed some tokens.
_COMES_S = 15.0
# So long must a fault last under which new work flows, for anybody to see that it does not.
SEEN_S = 6.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may lay its hands on."""

    room: ChaosRoom
    agent: str
    witness: Witness
    dice: random.Random
    keeper: Coordinator
    # Gateways that lived and were stopped or cut off: their streams may break.
    harmed: set[str] = field(default_factory=set[str])
    # Gateways that were told to end: theirs may not.
    drained: set[str] = field(default_factory=set[str])
    # Why the fault did not come about.
    missed: list[str] = field(default_factory=list[str])

    @property
    def process(self) -> Process:
        return self.room.agents[self.agent]

    def end(self, keeper: Coordinator) -> None:
        """As a well-behaved restart does it."""
        ended(keeper.process)
        self.drained.add(keeper.name)

    def saw(self, what: str, look: Callable[[], bool]) -> bool:
        """Waits for what makes the fault one; without it there was none."""
        try:
            until(what, look, _COMES_S)
        except AssertionError:
            self.missed.append(what)
        return not self.missed


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    course: Callable[[Scene], Course]
    hold_s: float
    of_the_room: bool
    # The runtime says what is not so, in frames that are right: answers may be wrong. Drawn only where it is named.
    lies: bool = False
    # New work must begin while it lasts, at every gateway together, but for the time of an election.
    flows: bool = False
    # Processes end by themselves, as they should.
    ends: bool = False


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    hold_s: float = 3.0,
    of_the_room: bool = False,
    lies: bool = False,
    flows: bool = False,
    ends: bool = False,
) -> Callable[[Callable[[Scene], Course]], Callable[[Scene], Course]]:
    """Enters a course into the table."""

    def enter(course: Callable[[Scene], Course]) -> Callable[[Scene], Course]:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, course, hold_s, of_the_room, lies, flows, ends)
        return course

    return enter
