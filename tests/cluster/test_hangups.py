"""A client that hangs up frees its slot, and a thousand of them leak nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from cluster.client import Answer, chat, gather, opened, read, stream
from cluster.harness import DEMO, Room, until


def rows(room: Room) -> int:
    """Sequences that the runtimes themselves report."""
    return sum(runtime["running"] for runtime in room.runtimes())


async def hang_up_after(url: str, pieces: int, when: Callable[[], bool] = lambda: True) -> bool:
    """Reads some pieces, and on until it is so; then closes the connection. Whether the answer had not ended before."""
    async with opened(url, chat(DEMO, max_tokens=400)) as response:
        answer = Answer()
        if pieces == 0:
            return True
        async for _ in read(response, answer):
            if len(answer.pieces) >= pieces and when():
                return True
    return False


def test_a_hang_up_frees_the_slot_on_the_runtimes_own_list_within_a_second(
    room: Room, figure: Callable[[str], None]
) -> None:
    room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.02")
    room.ready()
    # The runtime's own list must show it first, or its absence would say nothing.
    assert asyncio.run(hang_up_after(room.url, 3, lambda: rows(room) == 1)), "never on the list"
    hung_up, pid = time.monotonic(), room.runtime_pid("one")
    # By the same process: a runtime that dies of it has no rows either.
    until("the row is gone", lambda: [(one["pid"], one["running"]) for one in room.runtimes("one")] == [(pid, 0)])
    freed_s = time.monotonic() - hung_up
    # P5 is a promise about time; the bound here is that promise, with the runtime's report interval of a second on top.
    assert freed_s < 2.0, f"freed after {freed_s:.2f} s"
    assert gather(room.url, [chat(DEMO, max_tokens=3)])[0].clean
    figure(f"slot freed {freed_s * 1000:.0f} ms after the hang-up, on the runtime's own list")


def test_the_next_request_does_not_wait_for_a_cancelled_one(room: Room) -> None:
    """Defect 3: a cancelled request must free its slot."""
    room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.02", more=["--slots", "1"])
    room.ready()

    async def cancel_then_ask() -> Answer:
        await hang_up_after(room.url, 2)
        return await stream(room.url, chat(DEMO, max_tokens=3))

    assert asyncio.run(cancel_then_ask()).clean


def test_a_thousand_random_hang_ups_leak_nothing(room: Room) -> None:
    room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.002")
    room.ready()
    chance = random.Random(5)

    async def storm() -> None:
        gate = asyncio.Semaphore(16)

        async def one(pieces: int) -> None:
            async with gate:
                await hang_up_after(room.url, pieces)

        await asyncio.gather(*(one(chance.randrange(0, 12)) for _ in range(1_000)))

    asyncio.run(storm())
    until("every row is gone", lambda: rows(room) == 0)
    status = room.status()
    assert [(model["waiting"], model["running"]) for model in status["models"]] == [(0, 0)]
    assert [node["running"] for node in status["nodes"]] == [0]
    assert asyncio.run(stream(room.url, chat(DEMO, max_tokens=5))).clean
