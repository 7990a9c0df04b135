"""A streamed answer with every byte accounted for, choice by choice.

Owns taking a stream apart as strictly as the contract of the API allows: each event whole, one head for all chunks, one
role and one finish reason for each choice, nothing behind `[DONE]`. What breaks that is kept as a fault in words, and
makes two transcripts differ. Refuses to judge: a transcript of a broken answer is a transcript.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Told:
    """What a client was told of one choice."""

    text: str = ""
    logprobs: list[object] = field(default_factory=list[object])
    finish: str | None = None


@dataclass
class Transcript:
    """What a client was told in all. Two of them are equal if no client can tell them apart but by time and name."""

    choices: dict[int, Told] = field(default_factory=dict[int, Told])
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    done: bool = False
    broken: bool = False
    faults: list[str] = field(default_factory=list[str])
    # Times, names and the cut into pieces differ from run to run.
    heads: set[tuple[object, ...]] = field(default_factory=set[tuple[object, ...]], compare=False)
    comments: list[str] = field(default_factory=list[str], compare=False)
    requests: set[int] = field(default_factory=set[int], compare=False)
    _roles: Counter[int] = field(default_factory=Counter[int], compare=False)

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.choices[0].text if 0 in self.choices else ""

    @property
    def looks_finished(self) -> bool:
        """To any client that does not know better."""
        return self.done or any(told.finish for told in self.choices.values())

    def take(self, event: bytes) -> None:
        """One event without its empty line."""
        line = event.decode()
        if line.startswith(":"):
            self._comment(line)
        elif not line.startswith("data: ") or "\n" in line:
            self.faults.append(f"no event: {line!r}")
        elif self.done:
            self.faults.append(f"behind the end: {line!r}")
        elif line == "data: [DONE]":
            self.done = True
        else:
            self._chunk(json.loads(line.removeprefix("data: ")))

    def _comment(self, line: str) -> None:
        self.comments.append(line)
        # One of two choices may still wait for its first node when the other has begun.
        if "position" in line and len(self.choices) == len(self.requests):
            self.faults.append("a place in the line for an answer that has begun")

    def _chunk(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self.heads.add(tuple(chunk[key] for key in ("id", "created", "model", "object", "system_fingerprint")))
        if len(self.heads) > 1:
            self.faults.append("two heads")
        if chunk.get("usage"):
            self.faults += ["two usages"] * (self.usage is not None)
            self.usage = chunk["usage"]
        for choice in chunk["choices"]:
            self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        index, delta = choice["index"], choice.get("delta") or {}
        told = self.choices.setdefault(index, Told())
        if told.finish:
            self.faults.append(f"choice {index} goes on behind its end")
        self._roles[index] += "role" in delta
        if self._roles[index] > 1:
            self.faults.append(f"two roles for choice {index}")
        told.text += choice.get("text") or delta.get("content") or ""
        told.finish = choice.get("finish_reason")
        told.logprobs += _entries(choice.get("logprobs"))


def _entries(logprobs: dict[str, Any] | None) -> list[object]:
    """One for each token, in the order of the answer; both routes have their own shape."""
    if not logprobs:
        return []
    if "content" in logprobs:
        return list(logprobs["content"])
    fields = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return [list(entry) for entry in zip(*(logprobs[name] for name in fields), strict=True)]


def transcribe(
    client: httpx.Client,
    path: str,
    body: dict[str, Any],
    watch: Callable[[Transcript], None] = lambda _: None,
) -> Transcript:
    """Streams one answer to its end, whatever that is; `watch` sees it grow."""
    seen, rest = Transcript(), b""
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        with client.stream("POST", path, json=asked) as response:
            if response.status_code != 200:
                seen.error = json.loads(response.read())["error"]
                return seen
            seen.requests = {int(number) for number in response.headers["x-mlx-request"].split(",")}
            for data in response.iter_bytes():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    seen.take(event)
                    watch(seen)
    except httpx.TransportError:
        seen.broken = True
    if rest and not seen.broken:
        seen.faults.append(f"half an event: {rest!r}")
    return seen
