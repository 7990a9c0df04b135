"""Batches on real processes, as the openai SDK asks for them: every request is answered once, whatever is killed."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from typing import Any

import openai
import pytest

from cluster.group import Coordinator, Group
from cluster.harness import DEMO, Room, until
from cluster.reference import Question

CANARY = "zanzibar-canary-1147"
LINES = 800
QUESTIONS = [Question(f"{CANARY} asks for the number {number}", 5) for number in range(LINES)]
CHAT = "/v1/chat/completions"


def line(name: str, body: dict[str, Any], url: str = CHAT) -> str:
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}) + "\n"


def requests(questions: list[Question]) -> str:
    return "".join(line(f"request-{number}", question.body()) for number, question in enumerate(questions))


def client(url: str, key: str = "none") -> openai.OpenAI:
    # A cluster that was just founded takes files a moment later, when all its coordinators have said that they can.
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=20)


def begun(api: openai.OpenAI, text: str) -> str:
    file = api.files.create(file=("requests.jsonl", text.encode()), purpose="batch")
    assert file.bytes == len(text.encode()) and file.status == "processed"
    batch = api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"of": "tests"})
    assert batch.status == "validating" and batch.metadata == {"of": "tests"}
    return batch.id


def answered(api: openai.OpenAI, batch: str) -> int:
    counts = api.batches.retrieve(batch).request_counts
    assert counts
    return counts.completed


def over(api: openai.OpenAI, batch: str, status: str) -> openai.types.Batch:
    def ended() -> openai.types.Batch | None:
        found = api.batches.retrieve(batch)
        return found if found.status in ("completed", "failed", "expired", "cancelled") else None

    found = until(f"the batch is {status}", ended)
    assert found.status == status, found
    return found


def lines(api: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    return [json.loads(text) for text in api.files.content(file).text.splitlines()] if file else []


def texts(output: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(told["custom_id"], told["response"]["body"]["choices"][0]["message"]["content"]) for told in output]


def test_every_request_of_a_batch_is_answered_once_whatever_is_killed(
    group: Group, figure: Callable[[str], None]
) -> None:
    group.found()
    group.worker("one", "demo", fake="t1_s=0.01")
    group.all_ready(DEMO, 1)
    runner = group.followers()[0]
    others = [member for member in group.members if member is not runner]
    batch = begun(client(runner.url), requests(QUESTIONS))

    def got_to(count: int, member: Coordinator) -> int:
        api = client(member.url)
        until(f"{count} requests are answered", lambda: answered(api, batch) >= count)
        return answered(api, batch)

    first = got_to(24, others[0])
    runner.process.kill()
    second = got_to(first + 24, others[0])
    assert second < LINES, "nothing is left for what follows"
    for member in group.members:
        if member.process.alive():
            member.process.kill()
    for member in group.members:
        member.process.start()
    for member in group.members:
        until(f"{member.name} serves", member.knows_who_leads)
    done = over(client(runner.url), batch, "completed")
    assert done.request_counts and done.request_counts.completed == done.request_counts.total == LINES
    expected = [(f"request-{number}", question.reference()) for number, question in enumerate(QUESTIONS)]
    for member in group.members:
        assert texts(lines(client(member.url), done.output_file_id)) == expected, member.name
    leaks = {path for path in group.folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()}
    assert {path.parent.name for path in leaks} == {"files"}, leaks
    assert {stat.S_IMODE(path.stat().st_mode) for path in leaks} == {0o600}
    assert len(leaks) >= 2, "what was asked is on two disks"
    figure(f"{first} of {LINES} requests answered when their coordinator was killed, {second} when all of them were")


@pytest.fixture
def served(room: Room) -> Room:
    room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.01")
    room.ready()
    return room


def test_what_is_wrong_with_a_request_is_its_error_and_what_is_wrong_with_a_file_is_told_by_line(served: Room) -> None:
    api = client(served.url)
    good = QUESTIONS[0]
    text = (
        line("fine", good.body())
        + line("hot", {**good.body(), "temperature": 9})
        + line("long", {**good.body(), "messages": [{"role": "user", "content": "word " * 60_000}]})
    )
    done = over(api, begun(api, text), "completed")
    assert texts(lines(api, done.output_file_id)) == [("fine", good.reference())]
    errors = lines(api, done.error_file_id)
    told = [(error["custom_id"], error["response"]["body"]["error"]["code"]) for error in errors]
    assert told == [("hot", "invalid_value"), ("long", "context_length_exceeded")]

    text = line("a", good.body()) + "no json\n" + line("a", good.body()) + line("b", {**good.body(), "stream": True})
    text += line("c", good.body(), url="/v1/embeddings") + line("d", {**good.body(), "model": "nobody"})
    failed = over(api, begun(api, text), "failed")
    assert failed.errors and failed.errors.data
    assert [(error.line, error.code) for error in failed.errors.data] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "unsupported_parameter"),
        (5, "mismatched_url"),
        (6, "model_not_found"),
    ]


def test_a_cancelled_batch_keeps_what_it_has_and_nobody_else_sees_it(served: Room) -> None:
    api, stranger = client(served.url), client(served.url, "another")
    batch = begun(api, requests(QUESTIONS))
    until("something is answered", lambda: answered(api, batch) >= 8)
    with pytest.raises(openai.NotFoundError):
        stranger.batches.cancel(batch)
    api.batches.cancel(batch)
    done = over(api, batch, "cancelled")
    assert done.request_counts and 8 <= done.request_counts.completed < LINES
    output = texts(lines(api, done.output_file_id))
    assert output == [(f"request-{number}", QUESTIONS[number].reference()) for number in range(len(output))]
    assert len(output) == done.request_counts.completed
    until("nothing of it runs", lambda: {runtime["running"] for runtime in served.runtimes()} == {0})
    assert done.output_file_id
    for look in (stranger.batches.retrieve, stranger.files.retrieve, stranger.files.content, stranger.files.delete):
        with pytest.raises(openai.NotFoundError):
            look(batch if look == stranger.batches.retrieve else done.output_file_id)
    assert not list(stranger.batches.list()) and not list(stranger.files.list())
    assert [found.id for found in api.batches.list(limit=1)] == [batch]
    assert {found.purpose for found in api.files.list()} == {"batch", "batch_output"}
    for file in (done.output_file_id, done.input_file_id):
        assert api.files.delete(file).deleted
        with pytest.raises(openai.NotFoundError):
            api.files.retrieve(file)
