"""Three coordinators: every one is a gateway, and the death of any breaks no stream but those that pass through it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import httpx

from cluster.client import Answer, ask, chat, gather, stream
from cluster.group import Coordinator, Group
from cluster.harness import DEMO, until

SLOW = "t1_s=0.1"
LONG = {"max_tokens": 40, "seed": 7}
SHORT = {"max_tokens": 4, "seed": 7}


async def streams(gateways: list[Coordinator], each: int, then: Callable[[], None]) -> list[Answer]:
    """So many streams at each gateway; `then` is done once all of them have begun."""
    begun: set[int] = set()
    wanted = len(gateways) * each

    def watch(number: int) -> Callable[[Answer], None]:
        def seen(answer: Answer) -> None:
            if len(answer.pieces) == 3:
                begun.add(number)
                if len(begun) == wanted:
                    then()

        return seen

    urls = [gateway.url for gateway in gateways for _ in range(each)]
    body = chat(DEMO, **LONG)
    return list(await asyncio.gather(*(stream(url, body, watch(number)) for number, url in enumerate(urls))))


def test_any_gateway_answers_and_all_say_the_same(group: Group) -> None:
    group.found()
    group.worker("one", "demo", fake="")
    group.all_ready(DEMO, 1)
    texts = {
        ask(member.url, chat(DEMO, **SHORT)).json()["choices"][0]["message"]["content"] for member in group.members
    }
    assert len(texts) == 1, texts
    clusters = {(member.status() or {})["cluster"] for member in group.members}
    assert len(clusters) == 1
    assert sum(member.leads() for member in group.members) == 1


def test_the_death_of_the_leader_breaks_no_stream_and_loses_nobody_who_waits(
    group: Group, figure: Callable[[str], None]
) -> None:
    group.found()
    group.worker("one", "demo", fake=SLOW)
    group.worker("two", "demo", fake=SLOW)
    group.all_ready(DEMO, 2)
    whole = ask(group.members[0].url, chat(DEMO, **LONG)).json()["choices"][0]["message"]["content"]
    leader, gateways = group.leader(), group.followers()
    killed_at = 0.0

    def kill() -> None:
        nonlocal killed_at
        killed_at = time.monotonic()
        leader.process.kill()

    answers = asyncio.run(streams(gateways, 3, kill))
    assert killed_at > 0, "the leader died while all of them streamed"
    assert all(answer.clean for answer in answers), [answer for answer in answers if not answer.clean]
    assert {answer.text for answer in answers} == {whole}
    successor = group.leader()
    assert successor is not leader
    # New work flows.
    assert ask(gateways[0].url, chat(DEMO, **SHORT)).status_code == 200
    figure(f"the leader killed under six streams: all whole; {successor.name} led after it")


def test_every_coordinator_shows_the_leader_s_queue_and_explains_what_waits(group: Group) -> None:
    group.found()
    group.worker("one", "demo", fake=SLOW)
    group.all_ready(DEMO, 1)
    follower = group.followers()[0]
    shown: list[tuple[list[int], str]] = []

    def page(url: str) -> tuple[list[int], str]:
        """Who waits, and why the last of them does."""
        waiting = [entry["request"] for entry in httpx.get(f"{url}/api/v1/queue", timeout=10).json()["waiting"]]
        words = httpx.get(f"{url}/api/v1/explain/request/{waiting[-1]}", timeout=10).json()["words"]
        return waiting, words

    def look(_: Answer) -> None:
        if not shown:
            shown.extend([page(group.leader().url), page(follower.url)])

    async def all_of_them() -> list[Answer]:
        bodies = [chat(DEMO, f"question {number}", max_tokens=30, seed=number) for number in range(16)]
        return list(await asyncio.gather(*(stream(follower.url, body, look) for body in bodies)))

    answers = asyncio.run(all_of_them())
    assert all(answer.clean for answer in answers)
    (at_leader, _), (at_follower, words) = shown
    assert at_follower and set(at_follower) <= set(at_leader), shown
    assert f"request {at_follower[-1]} for {DEMO} waits" in words, words


def test_who_waits_at_a_follower_is_served_under_the_next_leader(group: Group, figure: Callable[[str], None]) -> None:
    group.found()
    group.worker("one", "demo", fake=SLOW)
    group.all_ready(DEMO, 1)
    leader, gateways = group.leader(), group.followers()
    bodies = [chat(DEMO, f"question {number}", max_tokens=12, seed=number) for number in range(24)]
    killed: list[float] = []

    async def all_of_them() -> list[Answer]:
        def first(_: Answer) -> None:
            if not killed:
                killed.append(time.monotonic())
                leader.process.kill()

        asked = [stream(gateways[number % 2].url, body, first) for number, body in enumerate(bodies)]
        return list(await asyncio.gather(*asked))

    answers = asyncio.run(all_of_them())
    assert killed and all(answer.clean for answer in answers), [answer for answer in answers if not answer.clean]
    began = time.monotonic()
    assert ask(gateways[1].url, chat(DEMO, **SHORT)).status_code == 200
    figure(
        f"24 requests across the death of a leader: all whole; the next answer took {time.monotonic() - began:.2f} s"
    )


def test_new_work_flows_soon_after_the_death_of_a_leader(group: Group, figure: Callable[[str], None]) -> None:
    group.found()
    group.worker("one", "demo", fake="")
    group.all_ready(DEMO, 1)
    leader, gateways = group.leader(), group.followers()
    leader.process.kill()
    began = time.monotonic()
    assert ask(gateways[0].url, chat(DEMO, **SHORT)).status_code == 200
    figure(f"from the death of a leader to the next whole answer at a follower: {time.monotonic() - began:.2f} s")


def test_a_stopped_leader_is_replaced_and_steps_down_when_it_wakes(group: Group) -> None:
    group.found()
    group.worker("one", "demo", fake="")
    group.all_ready(DEMO, 1)
    leader, gateways = group.leader(), group.followers()
    leader.process.send(signal.SIGSTOP)
    assert ask(gateways[0].url, chat(DEMO, **SHORT)).status_code == 200
    leader.process.send(signal.SIGCONT)
    until("one leads and the others follow", lambda: [member.leads() for member in group.members].count(True) == 1)
    until("the former leader answers", lambda: ask(leader.url, chat(DEMO, **SHORT)).status_code == 200)
    assert all(answer.clean for answer in gather(leader.url, [chat(DEMO, **SHORT)] * 4))


def test_facts_and_answers_survive_the_death_of_everything(group: Group) -> None:
    group.found()
    agent = group.worker("one", "demo", fake="")
    group.all_ready(DEMO, 1)
    cluster = (group.members[0].status() or {})["cluster"]
    for process in [agent, *(member.process for member in group.members)]:
        process.kill()
    for member in group.members:
        member.process.start()
    agent.start()
    group.all_ready(DEMO, 1)
    assert {(member.status() or {})["cluster"] for member in group.members} == {cluster}
    assert [ask(member.url, chat(DEMO, **SHORT)).status_code for member in group.members] == [200] * 3


def test_a_minority_answers_nothing_new_and_says_why(group: Group) -> None:
    group.found()
    group.worker("one", "demo", fake="")
    group.all_ready(DEMO, 1)
    survivor = group.members[0]
    for member in group.members[1:]:
        member.process.kill()
    until("it knows that it is alone", lambda: httpx.get(f"{survivor.url}/readyz").status_code == 503)
    headers = {"x-request-timeout-ms": "1500"}
    refused = httpx.post(f"{survivor.url}/v1/chat/completions", json=chat(DEMO, **SHORT), headers=headers, timeout=30)
    assert refused.status_code in (503, 504, 408), refused.text
    group.members[1].process.start()
    until("two of three answer again", lambda: ask(survivor.url, chat(DEMO, **SHORT)).status_code == 200)
