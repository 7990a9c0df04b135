"""A client that knows every answer beforehand and judges what it gets, byte by byte.

Owns the verdict on each request and the history file: one JSON line for each, in the order of their ends. Refuses to
retry, and to be kinder than an SDK: what looks finished to a client without this knowledge counts as finished.

    python -m cluster.witness --url http://127.0.0.1:7440 --rate 10 --seconds 60 --seed 7 --history history.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import httpx

from cluster.client import Answer, read
from cluster.reference import Question, drawn

# What the client tells the service, and how much later there must be an end: what is silent for longer is lost. The
# grace covers a gateway that was stopped for a while just then.
DEADLINE_S = 45.0
GRACE_S = 30.0
# A slow reader leaves its socket alone for this long between two pieces.
_SLOW_READ_S = 0.25
# Requests at once; beyond, the next one waits, so that a service that hangs is not buried.
_AT_ONCE = 256


class Verdict(StrEnum):
    WHOLE = "whole"  # the reference, a finish reason, the right usage, [DONE]
    BROKEN = "broken"  # said so or reset before [DONE]; what came is a beginning of the reference
    REFUSED = "refused"  # an error with a code, or nobody listens
    LEFT = "left"  # the client hung up on purpose; what came is a beginning of the reference
    LOST = "lost"  # no end at all within the bound
    WRONG = "wrong"  # not a beginning of the reference: tokens are missing, repeated or others
    FALSE_END = "false end"  # looks finished and is not the reference


# An answer that is cut goes on elsewhere: while its gateway lives, a broken one takes more than one fault.
ALWAYS_ALLOWED = frozenset({Verdict.WHOLE, Verdict.REFUSED, Verdict.LEFT})


class Manner(StrEnum):
    """How the client behaves."""

    PLAIN = "plain"
    SLOW = "slow reader"
    HANG_UP = "client abort"


@dataclass(slots=True)
class Seen:
    """What a client has of a request at its end."""

    answer: Answer
    refused: str = ""  # a code, or that nobody listens
    timed_out: bool = False
    left: bool = False
    garbled: bool = False  # bytes that are no event


@dataclass(slots=True)
class Record:
    """One line of a history."""

    request: int
    sent_s: float
    first_s: float | None
    ended_s: float
    verdict: Verdict
    code: str
    words: str
    node: str
    manner: Manner
    asked_tokens: int
    prompt_tokens: int
    got_chars: int
    wrong_at: int | None
    service_id: str
    service_numbers: str
    gateway: str = ""


def judge(question: Question, seen: Seen) -> Verdict:
    """The verdict. Bytes come first: a wrong text is wrong however it ended."""
    answer, reference = seen.answer, question.reference()
    # It asks for one choice.
    if seen.garbled or answer.faults or not {0}.issuperset(answer.ends) or not reference.startswith(answer.text):
        return Verdict.WRONG
    if seen.left:
        return Verdict.LEFT
    if seen.refused:
        return Verdict.REFUSED
    if answer.done and not answer.error:
        return Verdict.WHOLE if _is_whole(question, answer, reference) else Verdict.FALSE_END
    if seen.timed_out:
        return Verdict.LOST
    # A finish reason is a promise as well, and so is an end without a word.
    promised = answer.finish is not None and answer.text != reference
    said_so = answer.error is not None or answer.broken
    return Verdict.BROKEN if said_so and not promised else Verdict.FALSE_END


def _is_whole(question: Question, answer: Answer, reference: str) -> bool:
    usage = answer.usage or {}
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    right = counts == (len(question.prompt_ids()), question.max_tokens)
    return answer.text == reference and answer.finish == "length" and right


def wrong_at(question: Question, text: str) -> int | None:
    """The first character that is not the reference's."""
    reference = question.reference()
    if reference.startswith(text):
        return None
    return next((at for at, (a, b) in enumerate(zip(text, reference, strict=False)) if a != b), len(reference))


class Witness:
    """Asks and judges; one for each campaign."""

    def __init__(
        self,
        url: str | Mapping[str, str],
        seed: int,
        history: Path | None = None,
        bound_s: float = DEADLINE_S + GRACE_S,
    ) -> None:
        """At one URL, or at gateways by their names, in turn."""
        self._gateways = list({"": url}.items() if isinstance(url, str) else url.items())
        self._bound_s = bound_s
        self.records: list[Record] = []
        self.manners: dict[Manner, float] = {}
        self._dice = random.Random(seed)
        self._began = time.monotonic()
        self._asked = 0
        self._history: IO[str] | None = history.open("w") if history else None

    @property
    def asked(self) -> int:
        return self._asked

    def counts(self) -> Counter[Verdict]:
        return Counter(record.verdict for record in self.records)

    async def load(self, rate: float, stop: asyncio.Event, tokens: tuple[int, int] = (1, 64), canary: str = "") -> None:
        """Questions at random times, `rate` a second on average, until told to stop; returns when all have ended."""
        room = asyncio.Semaphore(_AT_ONCE)
        async with self.client() as client, asyncio.TaskGroup() as group:
            while not stop.is_set():
                await room.acquire()
                question, manner = drawn(self._dice, tokens, canary=canary), self._manner()
                task = group.create_task(self.ask(client, question, manner))
                task.add_done_callback(lambda _: room.release())
                try:
                    await asyncio.wait_for(stop.wait(), self._dice.expovariate(rate))
                except TimeoutError:
                    continue

    async def ask_all(self, questions: Iterable[Question]) -> list[Record]:
        """All at once."""
        async with self.client() as client:
            return list(await asyncio.gather(*(self.ask(client, question) for question in questions)))

    async def ask(self, client: httpx.AsyncClient, question: Question, manner: Manner = Manner.PLAIN) -> Record:
        """One request from its first byte to its verdict."""
        number, self._asked = self._asked, self._asked + 1
        gateway, url = self._gateways[number % len(self._gateways)]
        asker = Asker(client, url, question, manner, leave_after=number % 24)
        sent_s = self.now()
        try:
            async with asyncio.timeout(self._bound_s):
                await asker.run()
        except TimeoutError:
            asker.seen.timed_out = True
        record = self._record(number, asker, sent_s, gateway)
        self.records.append(record)
        if self._history:
            self._history.write(json.dumps(asdict(record)) + "\n")
            self._history.flush()
        return record

    def close(self) -> None:
        if self._history:
            self._history.close()

    def _record(self, number: int, asker: Asker, sent_s: float, gateway: str) -> Record:
        question, seen = asker.question, asker.seen
        error: dict[str, Any] = seen.answer.error or {}
        first_s = None if asker.first_at is None else round(asker.first_at - self._began, 3)
        return Record(
            request=number,
            sent_s=sent_s,
            first_s=first_s,
            ended_s=self.now(),
            verdict=judge(question, seen),
            code=str(seen.refused or error.get("code") or ("reset" if seen.answer.broken else "")),
            words=str(error.get("message") or ", ".join(seen.answer.faults)),
            node=seen.answer.headers.get("x-mlx-node", ""),
            manner=asker.manner,
            asked_tokens=question.max_tokens,
            prompt_tokens=len(question.prompt_ids()),
            got_chars=len(seen.answer.text),
            wrong_at=wrong_at(question, seen.answer.text),
            service_id=seen.answer.headers.get("x-request-id", ""),
            service_numbers=seen.answer.headers.get("x-mlx-request", ""),
            gateway=gateway,
        )

    def _manner(self) -> Manner:
        share = self._dice.random()
        for manner, chance in self.manners.items():
            share -= chance
            if share < 0:
                return manner
        return Manner.PLAIN

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        headers = {"x-request-timeout-ms": str(int(DEADLINE_S * 1_000))}
        # The bound is kept by `ask`; this one only ever comes later.
        return httpx.AsyncClient(timeout=2 * self._bound_s, limits=limits, headers=headers)

    def now(self) -> float:
        """Seconds since the witness began; the clock of its records."""
        return round(time.monotonic() - self._began, 3)


class Asker:
    """One request under way."""

    def __init__(
        self, client: httpx.AsyncClient, url: str, question: Question, manner: Manner, leave_after: int
    ) -> None:
        self.question, self.manner, self.seen = question, manner, Seen(Answer())
        self.first_at: float | None = None
        self._client, self._url, self._leave_after = client, url, leave_after

    async def run(self) -> None:
        """To its end, whatever that is."""
        try:
            await (self._streamed() if self.question.stream else self._at_once())
        except httpx.ConnectError:
            self.seen.refused = "unreachable"
        except httpx.TransportError:
            self.seen.answer.broken = True
        except (json.JSONDecodeError, KeyError):
            self.seen.garbled = True

    async def _streamed(self) -> None:
        answer = self.seen.answer
        body = {**self.question.body(), "stream": True, "stream_options": {"include_usage": True}}
        async with self._client.stream("POST", self._url + self.question.path, json=body) as response:
            answer.headers = dict(response.headers)
            if response.status_code != 200:
                await response.aread()
                self._refused(response)
                return
            answer.status = 200
            self.seen.left = self.manner is Manner.HANG_UP and self._leave_after == 0
            if self.seen.left:
                return
            async for _ in read(response, answer):
                self.first_at = self.first_at or time.monotonic()
                if self.manner is Manner.SLOW:
                    await asyncio.sleep(_SLOW_READ_S)
                if self.manner is Manner.HANG_UP and len(answer.pieces) >= self._leave_after:
                    self.seen.left = True
                    return

    async def _at_once(self) -> None:
        answer = self.seen.answer
        response = await self._client.post(self._url + self.question.path, json=self.question.body())
        answer.headers = dict(response.headers)
        if response.status_code != 200:
            self._refused(response)
            return
        self.first_at = time.monotonic()
        document = response.json()
        choice = document["choices"][0]
        answer.text = choice["text"] if "text" in choice else choice["message"]["content"]
        answer.status, answer.finish, answer.usage, answer.done = 200, choice["finish_reason"], document["usage"], True

    def _refused(self, response: httpx.Response) -> None:
        self.seen.answer.status = response.status_code
        try:
            self.seen.answer.error = response.json()["error"]
            self.seen.refused = str(response.json()["error"]["code"])
        except (json.JSONDecodeError, KeyError, TypeError):
            # Not an error of this API: whoever sees it can do nothing with it.
            self.seen.refused = f"status {response.status_code} without a code"


def violations(records: Iterable[Record], may: frozenset[Verdict]) -> list[Record]:
    """The requests that a campaign must not have seen."""
    return [record for record in records if record.verdict not in may or "without a code" in record.code]


def history(path: Path) -> list[Record]:
    """Reads a history back."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line |= {"verdict": Verdict(line["verdict"]), "manner": Manner(line["manner"])}
    return [Record(**line) for line in lines]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.witness", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--history", type=Path)
    parser.add_argument("--may-break", action="store_true", help="a broken stream is no violation")
    options = parser.parse_args(argv)
    witness = Witness(options.url, options.seed, options.history)

    async def timed() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(options.seconds, stop.set)
        await witness.load(options.rate, stop)

    asyncio.run(timed())
    witness.close()
    print(json.dumps(witness.counts()))
    may = ALWAYS_ALLOWED | {Verdict.BROKEN} if options.may_break else ALWAYS_ALLOWED
    return 1 if violations(witness.records, may) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
