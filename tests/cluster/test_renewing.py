"""Certificates that last seconds are renewed in time, under answers, by agents and coordinators, also after absence."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.client import Answer, ask, chat, stream
from cluster.group import Group
from cluster.harness import DEMO, Room, until

LIFE_S = 4
PACE = "t1_s=0.05"
LONG = {"max_tokens": 60, "seed": 7}
SHORT = {"max_tokens": 4, "seed": 7}


@pytest.fixture(autouse=True)
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_SERVING_LEAF_LIFE_S", str(LIFE_S))


def certificate(folder: Path, agent: str) -> str:
    kept = json.loads((folder / agent / "agent" / "identity" / "membership.json").read_text())
    return kept["certificate_pem"]


async def under_load(gateways: list[str], until_s: float, also: Callable[[], None]) -> list[Answer]:
    """At each gateway one answer after another until then; `also` is done again and again beside them."""
    body = chat(DEMO, **LONG)

    async def at(gateway: str) -> list[Answer]:
        answers: list[Answer] = []
        while time.monotonic() < until_s:
            answers.append(await stream(gateway, body))
        return answers

    async def beside() -> None:
        while time.monotonic() < until_s:
            also()
            await asyncio.sleep(0.1)

    *told, _ = await asyncio.gather(*(at(gateway) for gateway in gateways), beside())
    return [answer for answers in told for answer in answers]


def test_certificates_are_renewed_over_and_over_and_no_answer_notices(
    group: Group, figure: Callable[[str], None]
) -> None:
    group.found()
    group.worker("one", "demo", fake=PACE)
    two = group.worker("two", "demo", fake=PACE)
    group.all_ready(DEMO, 2)
    whole = ask(group.members[0].url, chat(DEMO, **LONG)).json()["choices"][0]["message"]["content"]
    seen: dict[str, set[str]] = {"one": set(), "two": set()}

    def look() -> None:
        for agent, certificates in seen.items():
            certificates.add(certificate(group.folder, agent))

    urls = [member.url for member in group.members]
    answers = asyncio.run(under_load(urls, time.monotonic() + 5 * LIFE_S, look))
    assert all(answer.clean for answer in answers), [answer for answer in answers if not answer.clean]
    assert {answer.text for answer in answers} == {whole}
    renewed = {agent: len(certificates) - 1 for agent, certificates in seen.items()}
    assert all(count >= 4 for count in renewed.values()), renewed
    lost = [line for line in two.said().splitlines() if "session lost" in line]
    assert not lost, lost
    # Whatever was signed at the start has long ended: connections made anew need certificates made since.
    leader = group.leader()
    leader.process.kill()
    until("the others answer", lambda: ask(group.followers()[0].url, chat(DEMO, **SHORT)).status_code == 200)
    leader.process.start()
    until("it is back", lambda: ask(leader.url, chat(DEMO, **SHORT)).status_code == 200)
    figure(f"{len(answers)} answers over {5 * LIFE_S} s of certificates that last {LIFE_S} s; renewals: {renewed}")


def test_an_agent_that_was_away_for_longer_than_its_certificate_lasts_is_the_same_node(room: Room) -> None:
    room.coordinator()
    agent = room.agent("one", "demo", fake=PACE)
    room.ready()
    number = room.status()["nodes"][0]["node"]
    agent.kill()
    at = agent.command.index("--token")
    agent.command[at : at + 2] = []
    time.sleep(LIFE_S + 1)
    agent.start()
    until("it is back", lambda: room.status()["nodes"][0]["connected"])
    room.ready()
    assert [node["node"] for node in room.status()["nodes"]] == [number]
    assert ask(room.url, chat(DEMO, **SHORT)).status_code == 200


def test_an_agent_that_slept_over_the_end_of_its_certificate_comes_back(room: Room) -> None:
    room.coordinator()
    agent = room.agent("one", "demo", fake=PACE)
    room.ready()
    agent.send(signal.SIGSTOP)
    until("it is missed", lambda: not room.status()["nodes"][0]["connected"])
    time.sleep(LIFE_S + 1)
    agent.send(signal.SIGCONT)
    room.ready()
    assert ask(room.url, chat(DEMO, **SHORT)).status_code == 200
