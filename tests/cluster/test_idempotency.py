"""Requests with an Idempotency-Key on real processes: answered once, whoever is asked again and whatever is killed."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cluster.client import TIMEOUT_S, chat
from cluster.group import Coordinator, Group
from cluster.harness import DEMO, ENDLESS, until

SLOW = "t1_s=0.1"
LONG = {"max_tokens": 40, "seed": 7, "temperature": 0.9, "logit_bias": ENDLESS, "stream": True}
KEY = {"idempotency-key": "order-4711"}
PATH = "/v1/chat/completions"


@dataclass
class Raw:
    """An answer to the last byte."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    broken: bool = False

    @property
    def ids(self) -> list[str]:
        return [line[4:] for line in self.body.decode().splitlines() if line.startswith("id: ")]

    @property
    def whole(self) -> bool:
        return self.status == 200 and not self.broken and self.body.endswith(b"data: [DONE]\n\n")

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"


async def asked(
    gateway: Coordinator,
    body: dict[str, Any],
    on_bytes: Callable[[Raw], None] | None = None,
    headers: dict[str, str] | None = None,
) -> Raw:
    answer = Raw()
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_S) as client,
            client.stream("POST", gateway.url + PATH, json=body, headers=headers or KEY) as response,
        ):
            answer.status, answer.headers = response.status_code, dict(response.headers)
            async for piece in response.aiter_raw():
                answer.body += piece
                if on_bytes:
                    on_bytes(answer)
    except httpx.TransportError:
        answer.broken = True
    return answer


def ask(gateway: Coordinator, body: dict[str, Any], **headers: str) -> Raw:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(asked(gateway, body, headers=KEY | named))


def error_code(answer: Raw) -> str:
    return httpx.Response(200, content=answer.body).json()["error"]["code"]


def started(group: Group, agents: int = 1) -> None:
    group.found()
    for number in range(agents):
        group.worker(f"agent-{number}", "demo", fake=SLOW)
    group.all_ready(DEMO, agents)


def after(pieces: int, event: asyncio.Event) -> Callable[[Raw], None]:
    """Sets the event when so much has come."""

    def watch(answer: Raw) -> None:
        if len(answer.ids) >= pieces:
            event.set()

    return watch


def kept(group: Group, member: Coordinator) -> list[Path]:
    return list((group.folder / member.name / "coordinator" / "answers").iterdir())


def test_the_same_key_gets_the_same_bytes_while_it_runs_and_ever_after(group: Group) -> None:
    started(group)
    here, there, third = group.members
    body = chat(DEMO, **LONG)

    async def meanwhile() -> tuple[Raw, Raw, Raw, Raw]:
        begun = asyncio.Event()
        first = asyncio.create_task(asked(here, body, after(5, begun)))
        await begun.wait()
        second = asyncio.create_task(asked(here, body))
        elsewhere, other = await asyncio.gather(asked(there, body), asked(there, body | {"seed": 8}))
        return await first, await second, elsewhere, other

    first, second, elsewhere, other = asyncio.run(meanwhile())
    assert first.whole and not first.replayed
    assert second.body == first.body and not second.broken, "it joined in the middle and got all of it"
    assert (elsewhere.status, error_code(elsewhere)) == (409, "idempotency_in_flight")
    assert elsewhere.headers["retry-after"] == "1"
    assert (other.status, error_code(other)) == (422, "idempotency_key_reused")

    for member in (here, there, third):
        again = ask(member, body)
        assert again.replayed and again.body == first.body, f"{member.name}: {again}"
        assert again.headers["x-mlx-node"] == first.headers["x-mlx-node"]
        rest = ask(member, body, last_event_id=first.ids[6])
        assert rest.ids == first.ids[7:] and first.body.endswith(rest.body)
        assert error_code(ask(member, body | {"seed": 8})) == "idempotency_key_reused"

    whole = {**body, "stream": False}
    key = {"idempotency_key": "order-4712"}
    answers = [ask(member, whole, **key) for member in group.members]
    assert [answer.replayed for answer in answers] == [False, True, True]
    assert len({answer.body for answer in answers}) == 1 and answers[0].status == 200


def test_a_job_whose_gateway_is_killed_is_taken_over_by_the_next_one_that_is_asked(group: Group) -> None:
    started(group)
    dying = group.followers()[0]
    others = [member for member in group.members if member is not dying]
    body = chat(DEMO, **LONG)

    async def cut() -> tuple[Raw, Raw]:
        begun = asyncio.Event()
        first = asyncio.create_task(asked(dying, body, after(5, begun)))
        await begun.wait()
        dying.process.kill()
        return await first, await asked(others[0], body)

    first, second = asyncio.run(cut())
    assert first.broken and not first.whole
    assert second.whole and not second.replayed, second
    assert not set(first.ids) & set(second.ids), "the ids of another run are other ids"
    unknown = ask(others[1], body, last_event_id=first.ids[-1])
    assert (unknown.status, error_code(unknown)) == (409, "last_event_unknown")
    replayed = ask(others[1], body)
    assert replayed.replayed and replayed.body == second.body
    dying.process.start()
    until("it serves again", dying.knows_who_leads)
    back = ask(dying, body)
    assert back.replayed and back.body == second.body, "what it gave before nobody gets any more"


def test_an_answer_that_was_given_survives_the_death_of_everything(group: Group) -> None:
    started(group)
    canary = "zanzibar-canary-0815"
    body = chat(DEMO, canary, **LONG)
    first = ask(group.members[1], body)
    assert first.whole
    holders = [member for member in group.members if kept(group, member)]
    assert len(holders) == 2 and group.members[1] in holders
    for member in group.members:
        member.process.kill()
    for member in holders:
        (answer,) = kept(group, member)
        assert stat.S_IMODE(answer.stat().st_mode) == 0o600
        assert stat.S_IMODE(answer.parent.stat().st_mode) == 0o700
        assert first.body in answer.read_bytes()
    # One disk damages it.
    (answer,) = kept(group, holders[0])
    damaged = bytearray(answer.read_bytes())
    damaged[-20] ^= 1
    answer.write_bytes(damaged)
    for member in group.members:
        member.process.start()
    for member in group.members:
        until(f"{member.name} serves", member.knows_who_leads)
        again = ask(member, body)
        assert again.replayed and again.body == first.body, f"{member.name}: {again}"
    # What was asked is nowhere, nor is the key, and the answer only where it is kept.
    files = [path for path in group.folder.rglob("*") if path.is_file() and path.stat().st_size < 64 << 20]
    texts = {path: path.read_bytes() for path in files}
    assert [path for path, text in texts.items() if canary.encode() in text] == []
    assert [path for path, text in texts.items() if KEY["idempotency-key"].encode() in text] == []
    assert {path.parent.name for path, text in texts.items() if first.ids[3].encode() in text} == {"answers"}


def test_a_client_that_hangs_up_finds_its_answer_when_it_comes_back(group: Group) -> None:
    started(group)
    gateway = group.members[2]
    body = {**chat(DEMO, **LONG), "stream": False}

    async def hang_up() -> None:
        try:
            async with httpx.AsyncClient(timeout=1) as client:
                await client.post(gateway.url + PATH, json=body, headers=KEY)
        except httpx.ReadTimeout:
            return
        raise AssertionError("it answered too soon")

    asyncio.run(hang_up())
    back = ask(gateway, body)
    assert (back.status, back.replayed) == (200, False), "it was still being computed"
    again = ask(group.members[0], body)
    assert again.replayed and again.body == back.body
