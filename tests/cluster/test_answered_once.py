"""Whatever is killed or stopped at whatever moment, everybody who got a whole answer under one key got the same one."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from typing import Any

from cluster.client import chat
from cluster.group import Coordinator, Group
from cluster.harness import DEMO, ENDLESS, until
from cluster.test_idempotency import Raw, asked, error_code

# Without a seed: computed again, it is another answer.
BODY = chat(DEMO, max_tokens=20, logit_bias=ENDLESS, stream=True) | {"temperature": 1.5}
EVENTS = 22  # the role, twenty tokens and the end; then the last word
PATIENCE_S = 60


def key(number: int) -> dict[str, str]:
    return {"idempotency-key": f"round-{number}"}


async def insist(gateways: list[Coordinator], headers: dict[str, str], seen: Callable[[Raw], None]) -> Raw:
    """Asks one gateway after the other until an answer is whole."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for gateway in gateways:
                answer = await asked(gateway, BODY, seen, headers)
                if answer.whole:
                    return answer
                await asyncio.sleep(0.1)


def at_event(number: int, then: Callable[[], Any]) -> Callable[[Raw], None]:
    """Does it once, when somebody has so many events."""
    done: list[bool] = []

    def seen(answer: Raw) -> None:
        if len(answer.ids) >= number and not done:
            done.append(True)
            then()

    return seen


async def everybody(
    dying: Coordinator, others: list[Coordinator], headers: dict[str, str], kill: Callable[[Raw], None]
) -> list[Raw]:
    """Three clients with one key, each with a first gateway of its own."""
    first = insist([dying, *others], headers, kill)
    more = [insist(gateways, headers, lambda _: None) for gateways in (others, others[::-1])]
    return list(await asyncio.gather(first, *more))


def test_everybody_gets_one_answer_whoever_is_killed_at_whatever_moment(
    group: Group, figure: Callable[[str], None]
) -> None:
    group.found()
    group.worker("one", "demo", fake="t1_s=0.03")
    group.all_ready(DEMO, 1)
    dice = random.Random(4711)
    moments = [1, 5, 12, EVENTS - 1, EVENTS, EVENTS + 1]
    kills = 0
    for number, moment in enumerate(moments):
        dying = group.members[number % 3]
        others = [member for member in group.members if member is not dying]
        dice.shuffle(others)
        kill = at_event(moment, dying.process.kill)
        answers = asyncio.run(everybody(dying, others, key(number), kill))
        if not dying.process.alive():
            kills += 1
            dying.process.start()
        until(f"{dying.name} serves again", dying.knows_who_leads)
        group.all_ready(DEMO, 1)
        answers += [asyncio.run(insist([member], key(number), lambda _: None)) for member in group.members]
        assert len({answer.body for answer in answers}) == 1, f"round {number}, killed at event {moment}"
        assert all(answer.replayed for answer in answers[-3:])
    assert kills >= len(moments) - 2
    figure(f"{kills} gateways killed at different events of a keyed stream: one answer for everybody each time")


def test_a_gateway_that_only_stopped_for_a_while_gives_no_second_answer(group: Group) -> None:
    group.found()
    group.worker("one", "demo", fake="t1_s=0.1")
    group.all_ready(DEMO, 1)
    stopped = group.followers()[0]
    others = [member for member in group.members if member is not stopped]

    async def meanwhile() -> tuple[Raw, Raw]:
        begun = asyncio.Event()
        first = asyncio.create_task(asked(stopped, BODY, at_event(5, begun.set), key(0)))
        await begun.wait()
        stopped.process.send(signal.SIGSTOP)
        second = await insist(others, key(0), lambda _: None)
        stopped.process.send(signal.SIGCONT)
        return await first, second

    first, second = asyncio.run(meanwhile())
    assert not first.whole, "its answer was overtaken"
    assert first.broken
    until("it serves again", stopped.knows_who_leads)
    for member in group.members:
        replayed = asyncio.run(asked(member, BODY, headers=key(0)))
        if replayed.status == 409:
            assert error_code(replayed) == "idempotency_in_flight"
            replayed = asyncio.run(insist([member], key(0), lambda _: None))
        assert replayed.body == second.body, member.name
