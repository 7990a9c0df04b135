"""A client that watches every byte of an answer.

Owns telling apart what SDKs blur: a clean end with `[DONE]`, an error event, a connection that broke. Refuses to retry.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

TIMEOUT_S = 120.0


@dataclass
class Answer:
    """What one streamed request brought."""

    status: int = 0
    text: str = ""
    pieces: list[str] = field(default_factory=list[str])
    finish: str | None = None
    usage: dict[str, int] | None = None
    comments: list[str] = field(default_factory=list[str])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    done: bool = False
    error: dict[str, Any] | None = None
    broken: bool = False
    # Nobody listened.
    refused: bool = False
    # What no SDK minds and no service may send: two ends, another id, a line that is no event.
    faults: list[str] = field(default_factory=list[str])
    heads: set[tuple[Any, ...]] = field(default_factory=set[tuple[Any, ...]])
    ends: list[int] = field(default_factory=list[int])

    @property
    def clean(self) -> bool:
        """Looks like a whole answer to any SDK."""
        return self.status == 200 and self.done and not self.broken and self.error is None


def chat(model: str, text: str = "What is mlx-serving?", **more: Any) -> dict[str, Any]:
    """A greedy chat body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, **more}


async def stream(
    url: str,
    body: dict[str, Any],
    on_piece: Callable[[Answer], None] | None = None,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
) -> Answer:
    """Streams one answer to its end, whatever that end is."""
    answer = Answer()
    try:
        async with opened(url, body, path, headers) as response:
            answer.status, answer.headers = response.status_code, dict(response.headers)
            if response.status_code != 200:
                answer.error = json.loads(await response.aread())["error"]
                return answer
            async for _ in read(response, answer):
                if on_piece:
                    on_piece(answer)
    except httpx.TransportError as error:
        answer.broken, answer.refused = True, isinstance(error, httpx.ConnectError)
    return answer


@asynccontextmanager
async def opened(
    url: str, body: dict[str, Any], path: str = "/v1/chat/completions", headers: dict[str, str] | None = None
) -> AsyncIterator[httpx.Response]:
    """The raw streamed response; leaving the block hangs up."""
    asked = {"stream": True, "stream_options": {"include_usage": True}, **body}
    async with (
        httpx.AsyncClient(timeout=TIMEOUT_S) as client,
        client.stream("POST", url + path, json=asked, headers=headers) as response,
    ):
        yield response


async def read(response: httpx.Response, answer: Answer) -> AsyncIterator[str]:
    """Yields each piece of text as it arrives."""
    async for line in response.aiter_lines():
        if line.startswith(":"):
            answer.comments.append(line)
        elif line == "data: [DONE]":
            answer.faults += ["two ends"] * answer.done
            answer.done = True
        elif line.startswith("data: "):
            answer.faults += ["an event after the end"] * answer.done
            piece = take(json.loads(line[6:]), answer)
            if piece:
                yield piece
        elif line and not line.startswith(("id: ", "event: ")):
            answer.faults.append(f"no event: {line!r}")


def take(event: dict[str, Any], answer: Answer) -> str:
    if "error" in event:
        answer.error = event["error"]
        return ""
    answer.heads.add((event.get("id"), event.get("created"), event.get("model")))
    answer.faults += ["two heads"] * (len(answer.heads) > 1) + ["two usages"] * bool(
        answer.usage and event.get("usage")
    )
    answer.usage = event.get("usage") or answer.usage
    pieces: list[str] = []
    for choice in event.get("choices", []):
        answer.faults += ["more after the end of a choice"] * (choice.get("index") in answer.ends)
        if choice.get("finish_reason"):
            answer.ends.append(choice.get("index"))
        answer.finish = choice.get("finish_reason") or answer.finish
        piece = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        if piece:
            pieces.append(piece)
    answer.pieces += pieces
    answer.text += "".join(pieces)
    return "".join(pieces)


def ask(url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
    """One request that is not streamed."""
    return httpx.post(url + path, json=body, timeout=TIMEOUT_S)


def gather(url: str, bodies: list[dict[str, Any]]) -> list[Answer]:
    """All bodies at once."""

    async def all_of_them() -> list[Answer]:
        return list(await asyncio.gather(*(stream(url, body) for body in bodies)))

    return asyncio.run(all_of_them())
