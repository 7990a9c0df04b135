"""A chaos campaign: a room under load, faults by a schedule that a seed draws, and what must be true at the end.

    python -m cluster.chaos --seed 7 --minutes 5 --agents 4          from tests/; --list names the faults

Owns the schedule, the end of a campaign and its report. The witness judges every request; the faults are in
`chaos_faults`, what they get hold of in `chaos_room`. Rounds follow one another: one fault, or two at different agents,
for as long as the longer one lasts; then all is healed and a short time passes. Each fault of the table comes once
before any comes again. The same seed draws the same rounds; where in the answers they strike is the machine's business.

Asserted at the end: full service returns, queues drain and no slot leaks, every node serves, no request was lost,
answered wrongly or ended falsely, none broke that could have gone on, no prompt is in any file. How long it took is
told, not asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from cluster.chaos_faults import FAULTS, Course, Scene
from cluster.chaos_room import ChaosRoom
from cluster.harness import until
from cluster.reference import Question, drawn
from cluster.witness import ALWAYS_ALLOWED, DEADLINE_S, Record, Verdict, Witness, violations

# In no answer, no name and no path; in every prompt of words.
CANARY = "zanzibar-canary-4711 "
# After the last fault. Breakers of a room that was treated badly open for up to five minutes.
FULL_SERVICE_S = 420.0
# These cut an answer wherever it goes. Of others it takes two: whoever was present at two deaths gets no third node,
# guilty or not.
CUTTING_EVERYWHERE = frozenset(
    {
        "kill -9 all agents",
        "rolling restart of agents",
        "partial partition",
        "all agents partitioned",
        "full disk",
    }
)
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


@dataclass(slots=True)
class Outcome:
    """The facts at the end of a campaign."""

    struck: list[Struck] = field(default_factory=list[Struck])
    # From when to when the coordinator was another one, or none.
    without_gateway: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    records: list[Record] = field(default_factory=list[Record])
    full_service_s: float = 0.0
    at_rest_s: float = 0.0
    ended_by_itself: list[str] = field(default_factory=list[str])
    with_canary: list[str] = field(default_factory=list[str])
    proxied: Counter[str] = field(default_factory=Counter[str])


class Campaign:
    """One room, one seed."""

    def __init__(self, folder: Path, agents: int, seed: int, names: Sequence[str] = (), history: Path | None = None):
        self._seed, self._agents = seed, agents
        self._names = list(names) or [name for name, fault in FAULTS.items() if not fault.lies]
        self._room = ChaosRoom(folder, agents, seed)
        self._witness = Witness(self._room.url, seed, history)
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
                self._play(now, random.Random(f"{self._seed}/{number}"))
        finally:
            load.stop()
        self._recover()
        return self._outcome

    def _play(self, now: Round, dice: random.Random) -> None:
        room, names = self._room, list(self._room.agents)
        self._told(", ".join(f"{strike.fault} at {names[strike.agent]}" for strike in now.strikes))
        courses: list[tuple[Strike, Course, float]] = []
        keeper, began_s = room.keeper.pid, self._witness.now()
        for strike in now.strikes:
            course = FAULTS[strike.fault].course(Scene(room, names[strike.agent], self._witness, dice))
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
        if room.keeper.pid != keeper:
            self._outcome.without_gateway.append((began_s, self._witness.now()))
        time.sleep(now.pause_s)

    def _told(self, words: str) -> None:
        with (self._room.folder / "campaign.log").open("a") as log:
            log.write(f"{self._witness.now():9.3f} {words}\n")

    def _recover(self) -> None:
        room, outcome = self._room, self._outcome
        healed = time.monotonic()
        self._told("all healed")
        until("full service", self._in_full_service, FULL_SERVICE_S)
        outcome.full_service_s = time.monotonic() - healed
        until("nothing waits and nothing runs", room.at_rest)
        outcome.at_rest_s = time.monotonic() - healed
        outcome.records = self._witness.records
        outcome.ended_by_itself = room.ended_by_itself
        outcome.with_canary = [str(path) for path in _files(room.folder) if CANARY.encode() in path.read_bytes()]
        for link in room.links.values():
            outcome.proxied += link.counts()

    def _in_full_service(self) -> bool:
        """Every agent is there, and a burst that needs all of them is answered whole, by all of them."""
        self._room.revive()
        if not self._room.in_full_service():
            return False
        dice = random.Random(self._seed)
        burst = [Question(drawn(dice, (4, 16)).prompt, 8, stream=False) for _ in range(8 * self._agents)]
        records = asyncio.run(self._witness.ask_all(burst))
        served = {record.node for record in records}
        return all(record.verdict is Verdict.WHOLE for record in records) and served >= set(self._room.numbers())


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


def may_break(record: Record, outcome: Outcome) -> bool:
    """Whether an answer had reason enough to break: its gateway died, its time was over, or it was cut twice.

    What waited in line may have met faults that did not touch it: where the line is long, this is too kind.
    """
    lived = (record.sent_s, record.ended_s)
    met = [one.fault for one in outcome.struck if _meet(lived, (one.from_s, one.to_s))]
    if any(_meet(lived, gap) for gap in outcome.without_gateway):
        return True
    match record.code:
        case "deadline_exceeded":
            return record.ended_s - record.sent_s > DEADLINE_S - 1
        case "stream_lost" | "request_quarantined":
            return len(met) > 1 or bool(CUTTING_EVERYWHERE & set(met))
        case _:  # a gateway that lives says why
            return False


def wrongs(outcome: Outcome) -> list[str]:
    """Everything that must not have happened, in words."""
    found = violations(outcome.records, ALWAYS_ALLOWED)
    bad = [one for one in found if one.verdict is not Verdict.BROKEN or not may_break(one, outcome)]
    return [*map(str, bad), *(f"a prompt is in {path}" for path in outcome.with_canary)]


def table(outcome: Outcome) -> str:
    """For each fault how often it struck, and the verdicts of the requests that were under way meanwhile."""
    lines = [f"{'fault':42}{'times':>6}" + "".join(f"{verdict:>10}" for verdict in Verdict)]
    for name in FAULTS:
        times = [one for one in outcome.struck if one.fault == name]
        if times:
            spans = [(one.from_s, one.to_s) for one in times]
            meanwhile = [r for r in outcome.records if any(_meet((r.sent_s, r.ended_s), span) for span in spans)]
            lines.append(_line(name, len(times), meanwhile))
    lines.append(_line("in all", len(outcome.struck), outcome.records))
    return "\n".join(lines)


def _line(name: str, times: int, records: Iterable[Record]) -> str:
    counts = Counter(record.verdict for record in records)
    return f"{name:42}{times:>6}" + "".join(f"{counts[verdict] or '':>10}" for verdict in Verdict)


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def report(outcome: Outcome) -> str:
    """All of it, for a person."""
    refusals = Counter(record.code for record in outcome.records if record.verdict is Verdict.REFUSED)
    breaks = Counter(record.code for record in outcome.records if record.verdict is Verdict.BROKEN)
    lines = [
        table(outcome),
        f"refused: {dict(refusals)}",
        f"broken:  {dict(breaks)}",
        f"proxy:   {dict(sorted(outcome.proxied.items()))}",
        f"full service after {outcome.full_service_s:.1f} s, at rest after {outcome.at_rest_s:.1f} s",
        *(f"ended by itself: {who}" for who in outcome.ended_by_itself),
        *(f"WRONG: {what}" for what in wrongs(outcome)),
    ]
    return "\n".join(lines)


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--rate", type=float, default=12.0, help="requests a second")
    parser.add_argument("--only", action="append", default=[], choices=list(FAULTS), help="may be given more than once")
    parser.add_argument("--folder", type=Path, help="keep logs and the history here")
    parser.add_argument("--list", action="store_true", help="name the faults, and nothing else")
    options = parser.parse_args(argv)
    # Whoever ends it gets the room cleared away all the same.
    signal.signal(signal.SIGTERM, _leave)
    if options.list:
        print("\n".join(FAULTS))
        return 0
    with tempfile.TemporaryDirectory(prefix="mlxs-chaos-") as made:
        folder: Path = options.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        room = folder / "room"
        room.mkdir()
        campaign = Campaign(room, options.agents, options.seed, options.only, folder / "history.jsonl")
        try:
            outcome = campaign.run(options.minutes * 60, options.rate)
            print(report(outcome))
            return 1 if wrongs(outcome) else 0
        finally:
            campaign.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
