"""A chaos campaign: a room under load, faults by a schedule that a seed draws, and what must be true at the end.

    python -m cluster.chaos --seed 7 --minutes 5 --agents 4          from tests/; --list names the faults
    python -m cluster.chaos --seed 7 --minutes 5 --coordinators 3    a group of them, and what only a group can suffer
    python -m cluster.chaos --seed 7 --minutes 90 --rooms 2          two rooms beside each other, judged together

Owns the schedule and the end of a campaign. The witness judges every request by itself, `chaos_judge` what it met; the
faults are in `chaos_faults`, what they get hold of in `chaos_room`. Rounds follow one another: one fault, or two at
different agents, for as long as the longer one lasts; then all is healed and a short time passes. Each fault of the
table comes once before any comes again. The same seed draws the same rounds; where in the answers they strike is the
machine's business.

Asserted at the end: full service returns at every gateway, queues drain and no slot leaks, every node serves, one
coordinator leads and all of them agree, no request was lost, answered wrongly or ended falsely, none broke that could
have gone on, no prompt is in any file. How long it took is told, not asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

import httpx

from cluster.chaos_group_faults import OF_A_GROUP
from cluster.chaos_judge import Absence, Gap, Outcome, Struck, report, table_of, wrongs
from cluster.chaos_room import ChaosRoom
from cluster.chaos_scene import FAULTS, Course, Scene
from cluster.harness import PATIENCE_S, until
from cluster.reference import Question, drawn
from cluster.witness import Verdict, Witness

# In no answer, no name and no path; in every prompt of words.
CANARY = "zanzibar-canary-4711 "
# After the last fault. Breakers of a room that was treated badly open for up to five minutes.
FULL_SERVICE_S = 420.0
# Of the campaign itself, as it plays a round; told with what was seen until then.
MISTAKES = (AssertionError, LookupError, OSError, RuntimeError, ValueError, httpx.HTTPError, subprocess.SubprocessError)
_PAIRED = 0.4
_PAUSE_S = (0.5, 2.5)


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault at an agent, which a fault of the room uses as it likes."""

    fault: str
    agent: int


@dataclass(frozen=True, slots=True)
class Round:
    strikes: tuple[Strike, ...]
    pause_s: float

    @property
    def hold_s(self) -> float:
        return max(FAULTS[strike.fault].hold_s for strike in self.strikes)


def rounds(seed: int, agents: int, names: Sequence[str]) -> Iterator[Round]:
    """Without an end; the whole table in a new order again and again."""
    dice = random.Random(seed)
    while True:
        deck = list(names)
        dice.shuffle(deck)
        while deck:
            first = Strike(deck.pop(), dice.randrange(agents))
            strikes = [first]
            single = [name for name in deck if not FAULTS[name].of_the_room]
            if agents > 1 and single and not FAULTS[first.fault].of_the_room and dice.random() < _PAIRED:
                deck.remove(single[-1])
                others = [agent for agent in range(agents) if agent != first.agent]
                strikes.append(Strike(single[-1], dice.choice(others)))
            yield Round(tuple(strikes), dice.uniform(*_PAUSE_S))


class Campaign:
    """One room, one seed."""

    def __init__(
        self,
        folder: Path,
        agents: int,
        seed: int,
        names: Sequence[str] = (),
        history: Path | None = None,
        coordinators: int = 1,
    ) -> None:
        self._seed, self._agents = seed, agents
        self._names = list(names) or drawable(coordinators)
        self._room = ChaosRoom(folder, agents, seed, coordinators)
        self._witness = Witness(self._room.gateways(), seed, history)
        self._outcome = Outcome()

    def close(self) -> None:
        self._witness.close()
        self._room.close()

    def run(self, seconds: float, rate: float, rounds_max: int | None = None) -> Outcome:
        """Strikes for so long or so often under load; then heals, and waits for what must come true."""
        load = Load(self._witness, rate)
        ends = time.monotonic() + seconds
        try:
            for number, now in enumerate(rounds(self._seed, self._agents, self._names)):
                if time.monotonic() > ends or number == rounds_max:
                    break
                try:
                    self._play(now, random.Random(f"{self._seed}/{number}"))
                except MISTAKES as error:
                    self._outcome.never.append(f"round {number} played to its end: {error!r}")
                    break
        finally:
            load.stop()
        self._recover()
        return self._outcome

    def _play(self, now: Round, dice: random.Random) -> None:
        room, names = self._room, list(self._room.agents)
        self._told(", ".join(f"{strike.fault} at {names[strike.agent]}" for strike in now.strikes))
        courses: list[tuple[Strike, Course, float]] = []
        keepers, began_s = self._keepers(), self._witness.now()
        harmed, drained = set[str](), set[str]()
        scenes: list[Scene] = []
        for strike in now.strikes:
            keeper = dice.choice(room.members)
            scene = Scene(room, names[strike.agent], self._witness, dice, keeper, harmed, drained)
            scenes.append(scene)
            course = FAULTS[strike.fault].course(scene)
            courses.append((strike, course, self._witness.now()))
            next(course)
        time.sleep(now.hold_s)
        during = ", ".join(strike.fault for strike in now.strikes)
        itself = room.notice(during)
        for scene, (strike, course, from_s) in zip(scenes, courses, strict=True):
            for _ in course:
                raise AssertionError(f"{strike.fault} yields twice")
            if scene.missed:
                self._outcome.missed += [f"{strike.fault} at {scene.agent}: {why}" for why in scene.missed]
            else:
                self._outcome.struck.append(Struck(strike.fault, scene.agent, from_s, self._witness.now()))
        itself += room.restart_what_is_beyond_help(during)
        if not any(FAULTS[strike.fault].ends for strike in now.strikes):
            self._outcome.unexcused += itself
        room.revive()
        for name, pid in self._keepers().items():
            if pid != keepers[name]:
                how = Absence.DRAINED if name in drained else Absence.DIED
                self._outcome.gaps.append(Gap(name, began_s, self._witness.now(), how))
            elif name in harmed:
                self._outcome.gaps.append(Gap(name, began_s, self._witness.now(), Absence.HARMED))
        self._told(f"healed; {room.told()}")
        time.sleep(now.pause_s)

    def _keepers(self) -> dict[str, int]:
        return {member.name: member.process.pid for member in self._room.members}

    def _told(self, words: str) -> None:
        with (self._room.folder / "campaign.log").open("a") as log:
            log.write(f"{self._witness.now():9.3f} {words}\n")

    def _recover(self) -> None:
        room, outcome = self._room, self._outcome
        healed = time.monotonic()
        self._told("all healed")
        self._until("full service", self._in_full_service, FULL_SERVICE_S)
        outcome.full_service_s = time.monotonic() - healed
        self._until("nothing waits and nothing runs", room.at_rest)
        outcome.at_rest_s = time.monotonic() - healed
        self._until("one leads and all agree", room.agreed)
        outcome.agreed_s = time.monotonic() - healed
        outcome.records = self._witness.records
        outcome.ended_by_itself = room.ended_by_itself
        outcome.with_canary = [str(path) for path in _files(room.folder) if CANARY.encode() in path.read_bytes()]
        outcome.proxied = room.ways.counts()

    def _until(self, what: str, look: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """What has been seen so far is worth telling even if this never comes true."""
        try:
            until(what, look, patience_s)
        except AssertionError:
            self._outcome.never.append(f"{what}: {self._room.told()}")

    def _in_full_service(self) -> bool:
        """Every agent is there, and a burst at each gateway that needs all of them is answered whole by all of them."""
        room = self._room
        room.revive()
        if not room.in_full_service():
            return False
        dice = random.Random(self._seed)
        count = 8 * self._agents * len(room.members)
        burst = [Question(drawn(dice, (4, 16)).prompt, 8, stream=False) for _ in range(count)]
        records = asyncio.run(self._witness.ask_all(burst))
        served = {(record.gateway, record.node) for record in records}
        wanted = {(gateway, node) for gateway in room.gateways() for node in room.numbers()}
        return all(record.verdict is Verdict.WHOLE for record in records) and served >= wanted


class Load:
    """The witness in a thread of its own."""

    def __init__(self, witness: Witness, rate: float) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(witness, rate))
        self._thread.start()

    def stop(self) -> None:
        """No more questions; returns when all have their ends."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._failed:
            raise self._failed

    def _run(self, witness: Witness, rate: float) -> None:
        try:
            self._loop.run_until_complete(witness.load(rate, self._stop, canary=CANARY))
        except BaseException as error:
            self._failed = error
            raise


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors")


def drawable(coordinators: int) -> list[str]:
    """The names that a campaign draws from: who lies comes only where he is named."""
    names = [name for name, fault in FAULTS.items() if not fault.lies]
    return [name for name in names if coordinators > 1 or name not in OF_A_GROUP]


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one room of a campaign is to suffer."""

    folder: Path
    seed: int
    minutes: float
    agents: int
    coordinators: int
    rate: float
    only: tuple[str, ...]

    def carry_out(self) -> Outcome:
        # Whoever ends it gets the room cleared away all the same.
        signal.signal(signal.SIGTERM, _leave)
        room = self.folder / "room"
        room.mkdir(parents=True)
        history = self.folder / "history.jsonl"
        campaign = Campaign(room, self.agents, self.seed, self.only, history, self.coordinators)
        try:
            outcome = campaign.run(self.minutes * 60, self.rate)
        finally:
            campaign.close()
        (self.folder / "report.txt").write_text(report(outcome) + "\n")
        return outcome


def carry_out(plans: Sequence[Plan]) -> list[Outcome]:
    """Each room in a process of its own."""
    if len(plans) == 1:
        return [plans[0].carry_out()]
    with ProcessPoolExecutor(len(plans), mp_context=get_context("spawn")) as rooms:
        return list(rooms.map(Plan.carry_out, plans))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--coordinators", type=int, default=1)
    parser.add_argument("--rooms", type=int, default=1, help="so many beside each other, each with its own seed")
    parser.add_argument("--rate", type=float, default=12.0, help="requests a second in each room")
    parser.add_argument("--only", action="append", default=[], choices=list(FAULTS), help="may be given more than once")
    parser.add_argument("--folder", type=Path, help="keep logs and the histories here")
    parser.add_argument("--list", action="store_true", help="name the faults, and nothing else")
    options = parser.parse_args(argv)
    if options.list:
        print("\n".join(FAULTS))
        return 0
    with tempfile.TemporaryDirectory(prefix="mlxs-chaos-") as made:
        folder: Path = options.folder or Path(made)
        plans = [
            Plan(
                folder if options.rooms == 1 else folder / f"room-{number}",
                options.seed + 1000 * number,
                options.minutes,
                options.agents,
                options.coordinators,
                options.rate,
                tuple(options.only),
            )
            for number in range(options.rooms)
        ]
        outcomes = carry_out(plans)
    if len(outcomes) > 1:
        print(table_of(outcomes))
    for plan, outcome in zip(plans, outcomes, strict=True):
        print(f"seed {plan.seed}", report(outcome), sep="\n")
    return 1 if any(map(wrongs, outcomes)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
