"""A request that kills the runtime it runs on: it costs two runtimes, never a third, and nobody else an answer."""

from __future__ import annotations

import asyncio

import httpx

from cluster.client import Answer, chat, gather, stream
from cluster.harness import DEMO, Room, until

# An id that no sentence of this file is made of.
POISON = 1_001
NODES = 6
# A prompt takes long enough that none of the others has begun when the poison strikes; those that have are cut and go
# on (test_resuming).
FAKE = f"crash_token={POISON},prefill_tps=40,t1_s=0.01"


def poison(room: Room) -> httpx.Response:
    body = {"model": DEMO, "prompt": [5, 6, 7, POISON], "max_tokens": 4, "temperature": 0}
    return httpx.post(f"{room.url}/v1/completions", json=body, timeout=120)


def deaths(room: Room) -> int:
    return sum(runtime["restarts"] for runtime in room.runtimes())


def test_a_poisonous_request_ends_two_runtimes_and_is_quarantined(room: Room) -> None:
    room.coordinator()
    for number in range(NODES):
        room.agent(f"node-{number}", "demo", fake=FAKE)
    room.ready(nodes=NODES)

    async def with_others() -> tuple[httpx.Response, list[Answer]]:
        others = [asyncio.create_task(stream(room.url, chat(DEMO, max_tokens=3, seed=seed))) for seed in range(8)]
        refused = await asyncio.to_thread(poison, room)
        return refused, list(await asyncio.gather(*others))

    refused, others = asyncio.run(with_others())
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "request_quarantined"), refused.text
    assert [answer.clean for answer in others] == [True] * 8, [answer.error for answer in others]
    until("every runtime is back", lambda: ready(room) == NODES)
    assert deaths(room) == 2

    again = poison(room)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "request_quarantined"), again.text
    assert again.headers["x-should-retry"] == "false"
    assert all(answer.clean for answer in gather(room.url, [chat(DEMO, max_tokens=3)] * NODES))
    assert deaths(room) == 2, "a quarantined request ran again"


def test_a_quarantine_outlives_the_coordinator(room: Room) -> None:
    coordinator = room.coordinator()
    for name in ("one", "two"):
        room.agent(name, "demo", fake=FAKE)
    room.ready(nodes=2)
    assert poison(room).json()["error"]["code"] == "request_quarantined"
    until("both runtimes are back", lambda: ready(room) == 2 and deaths(room) == 2)
    coordinator.kill()
    coordinator.start()
    room.ready(nodes=2)
    assert poison(room).json()["error"]["code"] == "request_quarantined"
    assert deaths(room) == 2


def ready(room: Room) -> int:
    return sum(model["nodes_ready"] for model in room.status()["models"])
