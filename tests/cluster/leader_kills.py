"""Strikes the leader again and again under load, and counts what clients saw.

`python -m cluster.leader_kills --minutes 10 --every 5` from `tests/`; `--how` says what is done to it: kill -9, SIGSTOP
for some seconds, or a partition from the other coordinators in both directions or in one (its clients and agents still
reach it). Every answer is compared with the one that the same request had before the first strike. A client is judged
by its gateway: those of one that was struck in their time may see their connection break, all others must see a whole
answer.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from cluster.client import Answer, chat, stream
from cluster.group import Coordinator, Group
from cluster.harness import DEMO, until
from cluster.wiring import Wiring

QUESTIONS = 8
BODY = {"max_tokens": 24, "temperature": 0}
FAKE = "t1_s=0.03"
# Longer than an election takes, and than a silent connection is believed in.
HOLD_S = 4.0
# How soon new work flows again, as promised.
P50_S, P99_S = 2.0, 3.0


class How(StrEnum):
    """What is done to a leader. The ways are seen from it: nothing comes in, or nothing gets out."""

    KILL = "kill"
    STOP = "stop"
    PARTITION = "partition"
    ONE_WAY_IN = "one-way-in"
    ONE_WAY_OUT = "one-way-out"


@dataclass
class Tally:
    """What became of the requests, and how long it took until new work flowed after each strike."""

    whole: int = 0
    broken_with_their_gateway: int = 0
    failed: list[str] = field(default_factory=list[str])
    recovered_s: list[float] = field(default_factory=list[float])
    kills: int = 0


class Campaign:
    def __init__(self, group: Group, how: How, every_s: float, until_s: float) -> None:
        self.group, self.how, self.every_s, self.until_s = group, how, every_s, until_s
        self.reference: dict[int, str] = {}
        self.tally = Tally()
        # From when to when each gateway was struck, the last time.
        self.struck: dict[str, tuple[float, float]] = {}

    async def ask(self, gateway: Coordinator, question: int) -> Answer:
        return await stream(gateway.url, chat(DEMO, f"question {question}", **BODY))

    async def learn(self) -> None:
        for question in range(QUESTIONS):
            answer = await self.ask(self.group.members[0], question)
            assert answer.clean, answer
            self.reference[question] = answer.text

    async def client(self, gateway: Coordinator, number: int) -> None:
        question = number
        while time.monotonic() < self.until_s:
            # As a load balancer would: a gateway that has just been started is used once it says that it can route.
            if not gateway.process.alive() or not await asyncio.to_thread(gateway.is_ready, DEMO, 1):
                await asyncio.sleep(0.05)
                continue
            question, began = (question + 1) % QUESTIONS, time.monotonic()
            answer = await self.ask(gateway, question)
            if answer.clean and answer.text == self.reference[question]:
                self.tally.whole += 1
            elif self.may_break(gateway, began, answer, self.reference[question]):
                self.tally.broken_with_their_gateway += 1
                await asyncio.sleep(0.05)
            else:
                self.tally.failed.append(f"{gateway.name} at {began:.1f}: {answer}")

    def may_break(self, gateway: Coordinator, began: float, answer: Answer, reference: str) -> bool:
        """With its gateway, or where one that has just been started does not listen yet; what came is a beginning."""
        is_beginning = not answer.clean and not answer.faults and reference.startswith(answer.text)
        return is_beginning and (self.was_struck(gateway, began) or answer.refused)

    def was_struck(self, gateway: Coordinator, began: float) -> bool:
        """While a request was under way that began then, or right before."""
        _, healed = self.struck.get(gateway.name, (0.0, 0.0))
        return began <= healed + 1 or not gateway.process.alive()

    async def killer(self) -> None:
        while time.monotonic() + self.every_s < self.until_s:
            await asyncio.sleep(self.every_s)
            leader = await asyncio.to_thread(self.group.leader)
            gateway = await asyncio.to_thread(self.another, leader)
            began = time.monotonic()
            self.struck[leader.name] = (began, began if self.how is How.KILL else math.inf)
            self.strike(leader)
            self.tally.kills += 1
            await self.recovery(gateway, began)
            if self.how is not How.KILL:
                await asyncio.sleep(max(0.0, began + HOLD_S - time.monotonic()))
            self.heal(leader)
            if self.how is not How.KILL:
                self.struck[leader.name] = (began, time.monotonic())
            await asyncio.to_thread(until, f"{leader.name} serves again", partial(serves, leader))

    def strike(self, leader: Coordinator) -> None:
        match self.how:
            case How.KILL:
                leader.process.kill()
            case How.STOP:
                leader.process.send(signal.SIGSTOP)
            case How.PARTITION | How.ONE_WAY_IN | How.ONE_WAY_OUT:
                self.cut(leader, blocked=True)

    def heal(self, leader: Coordinator) -> None:
        match self.how:
            case How.KILL:
                leader.process.start()
            case How.STOP:
                leader.process.send(signal.SIGCONT)
            case How.PARTITION | How.ONE_WAY_IN | How.ONE_WAY_OUT:
                self.cut(leader, blocked=False)

    def cut(self, leader: Coordinator, *, blocked: bool) -> None:
        """The ways between it and the other coordinators that this campaign is about."""
        wiring = self.group.wiring
        assert wiring, "a partition needs wires"
        for other in self.group.members:
            if other is not leader and self.how is not How.ONE_WAY_IN:
                wiring.send(leader.name, other.name, blocked=blocked)
            if other is not leader and self.how is not How.ONE_WAY_OUT:
                wiring.send(other.name, leader.name, blocked=blocked)

    def another(self, leader: Coordinator) -> Coordinator:
        """A gateway that is not struck. To be looked for before: who is asked how it stands may wait for a leader."""
        others = [member for member in self.group.members if member is not leader]

        def ready() -> Coordinator | None:
            return next((one for one in others if one.process.alive() and one.is_ready(DEMO, 1)), None)

        return until("another gateway can route", ready)

    async def recovery(self, gateway: Coordinator, struck_s: float) -> None:
        """From the strike to the first token of a request that is sent right after it to another gateway."""
        first = 0.0

        def seen(_: Answer) -> None:
            nonlocal first
            first = first or time.monotonic()

        answer = await stream(gateway.url, chat(DEMO, "question 0", **BODY), seen)
        if answer.clean:
            self.tally.recovered_s.append(first - struck_s)
        else:
            self.tally.failed.append(f"the first after a strike: {answer}")

    async def run(self) -> None:
        clients = [self.client(member, number) for member in self.group.members for number in range(2)]
        await asyncio.gather(self.killer(), *clients)


def serves(gateway: Coordinator) -> bool:
    return gateway.status() is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two strikes")
    parser.add_argument("--how", type=How, default=How.KILL, choices=list(How))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leader-kills-") as folder:
        wiring = Wiring(Path(folder), seed=1) if options.how not in {How.KILL, How.STOP} else None
        group = Group(Path(folder), wiring=wiring)
        try:
            group.found()
            for name in ("one", "two"):
                group.worker(name, "demo", fake=FAKE)
            group.all_ready(DEMO, 2)
            campaign = Campaign(group, options.how, options.every, time.monotonic() + options.minutes * 60)
            asyncio.run(campaign.learn())
            asyncio.run(campaign.run())
        finally:
            group.close()
            if wiring:
                wiring.close()
    return report(campaign.tally, options.how)


def report(tally: Tally, how: How) -> int:
    times = sorted(tally.recovered_s)
    print(
        f"{how} {tally.kills}, whole answers {tally.whole}, broken with their gateway {tally.broken_with_their_gateway}"
    )
    in_time = False
    if times:
        p50, p99 = statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]
        in_time = p50 <= P50_S and p99 <= P99_S
        print(f"new work flows after it: p50 {p50:.2f} s, p99 {p99:.2f} s, most {times[-1]:.2f} s")
    print(f"lost, wrong or refused elsewhere: {len(tally.failed)}")
    for line in tally.failed[:10]:
        print("  ", line[:600])
    if not in_time or not tally.kills or tally.whole < tally.kills:
        print(f"too slow, or too little: p50 {P50_S} s, p99 {P99_S} s, and a whole answer for each strike are expected")
        return 1
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
