"""Who waits is told where it stands, in its stream, on the page of the queue and by name."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import httpx

from cluster.client import Answer, chat, stream
from cluster.harness import BINARY, DEMO, Room, until


def queue(room: Room) -> list[dict[str, Any]]:
    waiting: list[dict[str, Any]] = httpx.get(f"{room.url}/api/v1/queue", timeout=10).json()["waiting"]
    return waiting


def said(room: Room, *arguments: str) -> str:
    command = [BINARY, *arguments, "--url", room.url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_line_of_waiters_moves_up_before_the_eyes_of_everyone(room: Room) -> None:
    room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.05", more=["--slots", "1"])
    room.ready()

    def look() -> tuple[list[dict[str, Any]], str, str]:
        line = until("three wait", lambda: seen if len(seen := queue(room)) == 3 else None)
        last = str(line[-1]["request"])
        return line, said(room, "explain", "request", last), said(room, "queue")

    async def crowd() -> tuple[tuple[list[dict[str, Any]], str, str], list[Answer]]:
        bodies = [chat(DEMO, max_tokens=60, seed=number) for number in range(4)]
        asked = [asyncio.create_task(stream(room.url, body)) for body in bodies]
        seen = await asyncio.to_thread(look)
        return seen, list(await asyncio.gather(*asked))

    (line, words, table), answers = asyncio.run(crowd())
    assert all(answer.clean for answer in answers)
    assert [waiter["position"] for waiter in line] == [1, 2, 3]
    assert {(waiter["model"], waiter["class"], waiter["loading"]) for waiter in line} == {(DEMO, "interactive", False)}
    assert f"request {line[-1]['request']} for {DEMO} waits: 2 before it" in words, words
    assert "one: full, 1 of 1" in words, words
    assert "3 waiting" in table, table
    # The last one waits for some nine seconds: it hears of a better place than its first.
    longest = max(answers, key=lambda answer: len(answer.comments))
    assert len(set(longest.comments)) >= 2, longest.comments
    assert queue(room) == []
