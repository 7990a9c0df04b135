"""A chaos campaign: a room under load, faults by a schedule that a seed draws, and what must be true at the end.

    python -m cluster.chaos --seed 7 --minutes 5 --agents 4          from tests/; --list names the faults
    python -m cluster.chaos --seed 7 --minutes 5 --coordinators 3    a group of them, and what only a group can suffer
    python -m cluster.chaos --seed 7 --minutes 90 --rooms 2          two rooms beside each other, judged together

Owns the schedule, the end of a campaign and its report. The witness judges every request; the faults are in
`chaos_faults`, what they get hold of in `chaos_room`. Rounds follow one another: one fault, or two at different agents,
for as long as the longer one lasts; then all is healed and a short time passes. Each fault of the table comes once
before any comes again. The same seed draws the same rounds; where in the answers they strike is the machine's business.

Asserted at the end: full service returns at every gateway, queues drain and no slot leaks, every node serves, one
coordinator leads and all of them agree, no request was lost, answered wrongly or ended falsely, none broke that could
have gone on, no prompt is in any file. How long it took is told, not asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

import httpx

from cluster.chaos_faults import FAULTS, Course, Scene
from cluster.chaos_group_faults import OF_A_GROUP
from cluster.chaos_room import ChaosRoom
from cluster.harness import PATIENCE_S, until
from cluster.reference import Question, drawn
from cluster.witness import ALWAYS_ALLOWED, DEADLINE_S, Record, Verdict, Witness, violations

# In no answer, no name and no path; in every prompt of words.
CANARY = "zanzibar-canary-4711 "
# After the last fault. Breakers of a room that was treated badly open for up to five minutes.
FULL_SERVICE_S = 420.0
# An election takes two seconds at most, on a machine that has time.
STALL_S = 4.0
# These cut an answer wherever it goes. Of others it takes two: whoever was present at two deaths gets no third node,
# guilty or not.
CUTTING_EVERYWHERE = frozenset(
    {
        "kill -9 all agents",
        "rolling restart of agents",
        "partial partition",
        "all agents partitioned",
        "full disk",
        "full disk of the leader",
    }
)
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


@dataclass(frozen=True, slots=True)
class Struck:
    """What happened and when, by the witness's clock."""

    fault: str
    agent: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """When the streams of a gateway may break: it was another process then, or none, or it was stopped or cut off."""

    gateway: str
    from_s: float
    to_s: float
    lived: bool = False


@dataclass(slots=True)
class Outcome:
    """The facts at the end of a campaign."""

    struck: list[Struck] = field(default_factory=list[Struck])
    gaps: list[Gap] = field(default_factory=list[Gap])
    records: list[Record] = field(default_factory=list[Record])
    full_service_s: float = 0.0
    at_rest_s: float = 0.0
    agreed_s: float = 0.0
    ended_by_itself: list[str] = field(default_factory=list[str])
    with_canary: list[str] = field(default_factory=list[str])
    # What should have come true in the end.
    never: list[str] = field(default_factory=list[str])
    proxied: Counter[str] = field(default_factory=Counter[str])


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
        keepers, harmed, began_s = self._keepers(), set[str](), self._witness.now()
        for strike in now.strikes:
            keeper = dice.choice(room.members)
            scene = Scene(room, names[strike.agent], self._witness, dice, keeper, harmed)
            course = FAULTS[strike.fault].course(scene)
            courses.append((strike, course, self._witness.now()))
            next(course)
        time.sleep(now.hold_s)
        room.notice(", ".join(strike.fault for strike in now.strikes))
        for strike, course, from_s in courses:
            for _ in course:
                raise AssertionError(f"{strike.fault} yields twice")
            self._outcome.struck.append(Struck(strike.fault, names[strike.agent], from_s, self._witness.now()))
        room.restart_what_is_beyond_help(", ".join(strike.fault for strike in now.strikes))
        room.revive()
        for name, pid in self._keepers().items():
            lived = pid == keepers[name]
            if not lived or name in harmed:
                self._outcome.gaps.append(Gap(name, began_s, self._witness.now(), lived))
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


def gap_of(record: Record, outcome: Outcome) -> Gap | None:
    """When its own gateway was not there, or was stopped or cut off, while it was under way."""
    gaps = [gap for gap in outcome.gaps if gap.gateway == record.gateway]
    met = [gap for gap in gaps if _meet((record.sent_s, record.ended_s), (gap.from_s, gap.to_s))]
    return min(met, key=lambda gap: gap.lived, default=None)


def may_break(record: Record, outcome: Outcome) -> bool:
    """Whether an answer had reason enough to break: its gateway died, its time was over, or it was cut twice.

    What waited in line may have met faults that did not touch it: where the line is long, this is too kind.
    """
    lived = (record.sent_s, record.ended_s)
    met = [one.fault for one in outcome.struck if _meet(lived, (one.from_s, one.to_s))]
    if gap_of(record, outcome):
        return True
    match record.code:
        case "deadline_exceeded":
            return record.ended_s - record.sent_s > DEADLINE_S - 1
        case "stream_lost" | "request_quarantined":
            return len(met) > 1 or bool(CUTTING_EVERYWHERE & set(met))
        case _:  # a gateway that lives says why
            return False


def stalls(outcome: Outcome) -> list[str]:
    """Faults that leave a group with all it needs, under which nothing began for longer than an election takes.

    By the clients of gateways that were there; where nobody waited, nothing is said.
    """
    found: list[str] = []
    asked = [record for record in outcome.records if not gap_of(record, outcome)]
    for one in outcome.struck:
        if FAULTS[one.fault].flows:
            begun = sorted(r.first_s for r in asked if r.first_s and one.from_s <= r.first_s <= one.to_s)
            for since, until_s in itertools.pairwise([one.from_s, *begun, one.to_s]):
                waited = [r for r in asked if r.sent_s < until_s - 2 and (r.first_s or r.ended_s) >= until_s]
                if until_s - since > STALL_S and len(waited) >= 3:
                    found.append(f"nothing began from {since:.1f} to {until_s:.1f} s: {one.fault}")
    return found


def wrongs(outcome: Outcome) -> list[str]:
    """Everything that must not have happened, in words."""
    found = violations(outcome.records, ALWAYS_ALLOWED)
    bad = [one for one in found if one.verdict is not Verdict.BROKEN or not may_break(one, outcome)]
    never = [f"never came true: {what}" for what in outcome.never]
    return [*map(str, bad), *(f"a prompt is in {path}" for path in outcome.with_canary), *stalls(outcome), *never]


def table(outcome: Outcome) -> str:
    """For each fault how often it struck, and the verdicts of the requests that were under way meanwhile."""
    return table_of([outcome])


def table_of(outcomes: Sequence[Outcome]) -> str:
    """The same, of several rooms together."""
    lines = [f"{'fault':46}{'times':>6}" + "".join(f"{verdict:>10}" for verdict in Verdict)]
    for name in FAULTS:
        times, meanwhile = 0, list[Record]()
        for outcome in outcomes:
            spans = [(one.from_s, one.to_s) for one in outcome.struck if one.fault == name]
            times += len(spans)
            meanwhile += [r for r in outcome.records if any(_meet((r.sent_s, r.ended_s), span) for span in spans)]
        if times:
            lines.append(_line(name, times, meanwhile))
    struck = sum(len(outcome.struck) for outcome in outcomes)
    lines.append(_line("in all", struck, [record for outcome in outcomes for record in outcome.records]))
    return "\n".join(lines)


def _line(name: str, times: int, records: Iterable[Record]) -> str:
    counts = Counter(record.verdict for record in records)
    return f"{name:46}{times:>6}" + "".join(f"{counts[verdict] or '':>10}" for verdict in Verdict)


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def report(outcome: Outcome) -> str:
    """All of it, for a person."""
    lines = [
        table(outcome),
        *(_codes(outcome, verdict) for verdict in (Verdict.REFUSED, Verdict.BROKEN)),
        f"proxy:   {dict(sorted(outcome.proxied.items()))}",
        f"full service after {outcome.full_service_s:.1f} s, at rest after {outcome.at_rest_s:.1f} s, "
        f"agreed after {outcome.agreed_s:.1f} s",
        *(f"ended by itself: {who}" for who in outcome.ended_by_itself),
        *(f"WRONG: {what}" for what in wrongs(outcome)),
    ]
    return "\n".join(lines)


def _codes(outcome: Outcome, verdict: Verdict) -> str:
    """How often each code was told: by gateways that were away, were stopped or cut off, or were there."""
    told = {"away": Counter[str](), "stopped or cut off": Counter[str](), "there": Counter[str]()}
    for record in outcome.records:
        if record.verdict is verdict:
            gap = gap_of(record, outcome)
            told["there" if gap is None else "stopped or cut off" if gap.lived else "away"][record.code] += 1
    return f"{verdict}, by gateways that were " + "; ".join(f"{how}: {dict(codes)}" for how, codes in told.items())


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
