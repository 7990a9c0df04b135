"""The witness itself: each verdict for what deserves it, on real bytes; an honest service gets nothing but `whole`."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from pathlib import Path

import pytest

from cluster import witness as command
from cluster.client import Answer
from cluster.harness import DEMO, Room, free_port
from cluster.reference import AMONG, Question, drawn, text_of
from cluster.witness import ALWAYS_ALLOWED, Manner, Record, Seen, Verdict, Witness, history, judge, violations

WORDS = Question((5, 6, 7), 3)
REFERENCE = WORDS.reference()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = "data: [DONE]\n\n"


def event(**fields: object) -> str:
    return f"data: {json.dumps(fields)}\n\n"


def piece(text: str, finish: str | None = None) -> str:
    return event(choices=[{"text": text, "index": 0, "finish_reason": finish}])


def usage(prompt: int = 3, completion: int = 3) -> str:
    return event(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": completion})


def chunked(*events: str, ended: bool = True) -> bytes:
    """A response body; without its last chunk the connection breaks under it."""
    body = b"".join(f"{len(one.encode()):x}\r\n{one}\r\n".encode() for one in events)
    return HEAD + body + (b"0\r\n\r\n" if ended else b"")


WHOLE = [piece(REFERENCE[:2]), piece(REFERENCE[2:]), piece("", "length"), usage(), DONE]
ERROR = event(error={"message": "x", "type": "x", "param": None, "code": "stream_lost"})
REFUSAL = json.dumps({"error": {"message": "x", "type": "x", "param": None, "code": "queue_full"}})

CASES = {
    "all of it": (chunked(*WHOLE), Verdict.WHOLE),
    "all of it, then a reset": (chunked(*WHOLE, ended=False), Verdict.WHOLE),
    "a reset in the middle": (chunked(*WHOLE[:1], ended=False), Verdict.BROKEN),
    "an error event in the middle": (chunked(WHOLE[0], ERROR, ended=False), Verdict.BROKEN),
    "a reset before the first byte": (b"", Verdict.BROKEN),
    "all of the text but no farewell": (chunked(*WHOLE[:3], ended=False), Verdict.BROKEN),
    "a clean end in the middle": (chunked(*WHOLE[:1]), Verdict.FALSE_END),
    "a farewell in the middle": (chunked(WHOLE[0], piece("", "length"), usage(), DONE), Verdict.FALSE_END),
    "a finish reason in the middle": (chunked(WHOLE[0], piece("", "stop"), ended=False), Verdict.FALSE_END),
    "no usage": (chunked(*WHOLE[:3], DONE), Verdict.FALSE_END),
    "another usage": (chunked(*WHOLE[:3], usage(completion=4), DONE), Verdict.FALSE_END),
    "another finish reason": (chunked(*WHOLE[:2], piece("", "stop"), usage(), DONE), Verdict.FALSE_END),
    "a repeated piece": (chunked(WHOLE[0], *WHOLE), Verdict.WRONG),
    "a missing piece": (chunked(*WHOLE[1:]), Verdict.WRONG),
    "a piece too many": (chunked(*WHOLE[:2], piece("!"), *WHOLE[2:]), Verdict.WRONG),
    "a wrong piece and then a reset": (chunked(WHOLE[1], ended=False), Verdict.WRONG),
    "two farewells": (chunked(*WHOLE, DONE), Verdict.WRONG),
    "two usages": (chunked(*WHOLE[:4], usage(), DONE), Verdict.WRONG),
    "two ends of a choice": (chunked(*WHOLE[:3], piece("", "length"), *WHOLE[3:]), Verdict.WRONG),
    "the end of a choice that nobody asked for": (
        chunked(*WHOLE[:2], WHOLE[2].replace('"index": 0', '"index": 1'), *WHOLE[3:]),
        Verdict.WRONG,
    ),
    "another id from here on": (chunked(*WHOLE[:2], event(id="b", choices=[]), *WHOLE[2:]), Verdict.WRONG),
    "a line that is no event": (chunked(*WHOLE[:3], "{}\n\n", *WHOLE[3:]), Verdict.WRONG),
    "no event at all": (chunked("data: {]\n\n"), Verdict.WRONG),
    "a refusal": (f"HTTP/1.1 429 X\r\ncontent-length: {len(REFUSAL)}\r\n\r\n{REFUSAL}".encode(), Verdict.REFUSED),
}


class Replaying:
    """A server that answers every request with the same bytes, then closes; or never, if it has none to say."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for connection in self._held:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head or b'"temperature"' not in head:
                head += connection.recv(65_536)
            if self._answer is None:
                self._held.append(connection)
                continue
            connection.sendall(self._answer)
            connection.close()


def asked(url: str, question: Question = WORDS, manner: Manner = Manner.PLAIN, bound_s: float = 30) -> Record:
    witness = Witness(url, 1, bound_s=bound_s)
    witness.manners = {manner: 1.0}

    async def one() -> Record:
        async with witness.client() as client:
            return await witness.ask(client, question, manner)

    return asyncio.run(one())


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_answer_gets_its_verdict(name: str) -> None:
    answer, verdict = CASES[name]
    server = Replaying(answer)
    try:
        assert asked(server.url).verdict is verdict
    finally:
        server.close()


def test_a_service_that_says_nothing_has_lost_the_request() -> None:
    server = Replaying(None)
    try:
        assert asked(server.url, bound_s=0.5).verdict is Verdict.LOST
    finally:
        server.close()


def test_nobody_there_is_a_refusal() -> None:
    record = asked(f"http://127.0.0.1:{free_port()}")
    assert (record.verdict, record.code) == (Verdict.REFUSED, "unreachable")


@pytest.mark.parametrize("position", range(len(REFERENCE)))
def test_a_wrong_character_is_found_wherever_it_is(position: int) -> None:
    text = REFERENCE[:position] + "\0" + REFERENCE[position + 1 :]
    right = {"prompt_tokens": 3, "completion_tokens": 3}
    answer = Answer(status=200, text=text, finish="length", usage=right, done=True)
    assert judge(WORDS, Seen(answer)) is Verdict.WRONG
    assert command.wrong_at(WORDS, text) == position


def test_a_refusal_without_a_code_is_a_violation_and_so_is_a_broken_stream_unless_it_is_said_to_be_none() -> None:
    server = Replaying(b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}")
    record = asked(server.url)
    server.close()
    assert violations([record], ALWAYS_ALLOWED) == [record]
    record.code, record.verdict = "reset", Verdict.BROKEN
    assert violations([record], ALWAYS_ALLOWED | {Verdict.BROKEN}) == []
    assert violations([record], ALWAYS_ALLOWED) == [record]


def test_questions_are_a_function_of_the_seed() -> None:
    def questions(seed: int) -> list[Question]:
        dice = random.Random(seed)
        return [drawn(dice, (1, 64)) for _ in range(50)]

    assert questions(3) == questions(3) != questions(4)
    assert len({question.reference() for question in questions(3) if question.max_tokens > 5}) > 40


@pytest.fixture
def served(room: Room) -> Room:
    room.coordinator()
    for name in ("one", "two"):
        room.agent(name, "demo", fake="t1_s=0.005")
    room.ready(nodes=2)
    return room


def test_an_honest_service_gives_nothing_but_whole_answers(served: Room, tmp_path: Path) -> None:
    witness = Witness(served.url, 3, tmp_path / "history.jsonl")
    dice = random.Random(3)
    asyncio.run(witness.ask_all(drawn(dice, (1, 64)) for _ in range(80)))
    witness.close()
    assert witness.counts() == {Verdict.WHOLE: 80}, [one for one in witness.records if one.verdict != Verdict.WHOLE]
    # The head of a stream that waits leaves before a node is found for it.
    assert {record.node for record in witness.records} - {""} == {"1", "2"}
    assert history(tmp_path / "history.jsonl") == witness.records


@pytest.mark.parametrize("manner", [Manner.SLOW, Manner.HANG_UP])
def test_a_client_with_bad_manners_is_served_or_has_left(served: Room, manner: Manner) -> None:
    verdicts = {asked(served.url, Question((5, 6, 7), 12), manner).verdict for _ in range(2)}
    assert verdicts == {Verdict.LEFT if manner is Manner.HANG_UP else Verdict.WHOLE}


def test_the_command_line_writes_a_history_and_ends_with_its_judgement(served: Room, tmp_path: Path) -> None:
    where = tmp_path / "history.jsonl"
    arguments = ["--url", served.url, "--rate", "20", "--seconds", "2", "--history", str(where)]
    assert command.main(arguments) == 0
    assert {record.verdict for record in history(where)} == {Verdict.WHOLE}


def test_a_lying_runtime_is_caught(room: Room) -> None:
    room.coordinator()
    room.agent("one", "demo", fake="lie_after=1")
    room.ready()
    assert asked(room.url, Question(tuple(AMONG[:9]), 20)).verdict is Verdict.WRONG
    assert asked(room.url, Question(text_of(AMONG[:9]), 20, stream=False)).verdict is Verdict.WRONG
    assert room.status()["models"][0]["model"] == DEMO
