"""Responses in the background on real processes: whatever is killed, what was read stays true and ends once."""

from __future__ import annotations

import stat
from collections.abc import Callable

import httpx
import openai
from openai.types.responses import Response

from cluster.group import Coordinator, Group
from cluster.harness import DEMO, ENDLESS, until

CANARY = "zanzibar-canary-2203"
LONG = {"model": DEMO, "max_output_tokens": 60, "temperature": 0.9, "background": True}
# Whose they are: without keys of the cluster, each token is somebody.
WHO = {"authorization": "Bearer none"}
OVER = ("completed", "incomplete", "failed", "cancelled")


def client(member: Coordinator) -> openai.OpenAI:
    # A cluster that was just founded takes responses a moment later, when all its coordinators have said that they can.
    return openai.OpenAI(base_url=f"{member.url}/v1", api_key="none", max_retries=20)


def story(member: Coordinator, response: str, after: int | None = None) -> list[str]:
    """The events as they came, without comments; in the end the stream has to be whole."""
    params = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    answer = httpx.get(f"{member.url}/v1/responses/{response}", params=params, headers=WHO, timeout=60)
    assert answer.status_code == 200, answer.text
    return [event for event in answer.text.split("\n\n") if event.startswith("event: ")]


def begin(member: Coordinator) -> tuple[str, list[str]]:
    """A response and its first events, whose reader then goes away in the middle."""
    body = LONG | {"input": CANARY, "stream": True, "logit_bias": ENDLESS}
    seen = ""
    with httpx.stream("POST", f"{member.url}/v1/responses", json=body, headers=WHO, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        for piece in answer.iter_text():
            seen += piece
            if seen.count("output_text.delta\n") >= 12:
                break
    events = [event for event in seen.split("\n\n")[:-1] if event.startswith("event: ")]
    identity = seen.split('"id":"resp_', 1)[1].split('"', 1)[0]
    return f"resp_{identity}", events


def ended(member: Coordinator, response: str) -> Response:
    def look() -> Response | None:
        found = client(member).responses.retrieve(response)
        return found if found.status in OVER else None

    return until("the response is over", look)


def test_a_response_outlives_the_coordinator_that_runs_it_and_nothing_that_was_read_changes(
    group: Group, figure: Callable[[str], None]
) -> None:
    group.found()
    group.worker("one", "demo", fake="t1_s=0.1")
    group.all_ready(DEMO, 1)
    dying = group.followers()[0]
    others = [member for member in group.members if member is not dying]
    # The version of the cluster rises a moment after its founding.
    client(dying).responses.create(model=DEMO, input="a", max_output_tokens=1, store=True)
    response, events = begin(dying)
    dying.process.kill()
    first = client(others[0]).responses.retrieve(response)
    assert first.status == "in_progress", "it has not ended, and is not forgotten"
    done = ended(others[0], response)
    assert (done.status, done.incomplete_details and done.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert done.usage and done.usage.output_tokens == 60
    whole = story(others[0], response)
    assert whole[: len(events)] == events, "what was read before is the beginning of what everybody reads"
    assert sum("event: response.incomplete\n" in event for event in whole) == 1
    dying.process.start()
    until("it serves again", dying.knows_who_leads)
    for member in group.members:
        assert story(member, response) == whole, member.name
        assert story(member, response, len(events) - 1) == whole[len(events) :], member.name
        assert client(member).responses.retrieve(response) == done, member.name
    assert httpx.get(f"{others[0].url}/v1/responses/{response}", headers={"x-api-key": "other"}).status_code == 404
    figure(f"{len(events)} of {len(whole)} events of a response were read when its coordinator was killed")

    leaks = {path for path in group.folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()}
    assert {path.parent.name for path in leaks} <= {"answers", "files"} and len(leaks) >= 2, leaks
    assert {stat.S_IMODE(path.stat().st_mode) for path in leaks} == {0o600}
    client(others[1]).responses.delete(response)
    assert httpx.get(f"{others[0].url}/v1/responses/{response}", headers=WHO).status_code == 404
