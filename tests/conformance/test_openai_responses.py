"""`/v1/responses` as the official openai client knows it, unmodified, against `mlx-serving up` on real MLX."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from cluster.harness import DEMO, ENDLESS, Room, until

QUESTION = "What is mlx-serving?"
# Without an end of its own it takes its time.
LONG = {"logit_bias": ENDLESS}


@pytest.fixture
def client(up: Room) -> openai.OpenAI:
    # The version of a cluster that was just founded rises a moment later.
    return openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=10)


def is_true(response: Response) -> Response:
    """The SDK takes anything for its types; its own models, asked to check, do not."""
    Response.model_validate(response.to_dict())
    return response


def over(client: openai.OpenAI, response: str) -> Response:
    def look() -> Response | None:
        found = client.responses.retrieve(response)
        return None if found.status in ("queued", "in_progress") else found

    return is_true(until("the response is over", look))


def told(events: list[ResponseStreamEvent]) -> list[str]:
    return [event.to_json(indent=None) for event in events]


def test_an_answer_is_that_of_a_chat(client: openai.OpenAI) -> None:
    answer = is_true(client.responses.create(model=DEMO, input=QUESTION, temperature=0))
    chat = client.chat.completions.create(model=DEMO, messages=[{"role": "user", "content": QUESTION}], temperature=0)
    assert answer.output_text == chat.choices[0].message.content
    assert answer.status == "completed" and answer.usage and chat.usage
    assert answer.usage.total_tokens == chat.usage.total_tokens
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_a_stream_is_what_the_sdk_puts_together(client: openai.OpenAI) -> None:
    with client.responses.stream(model=DEMO, input=QUESTION, temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text != ""
    raw = list(client.responses.create(model=DEMO, input=QUESTION, temperature=0, max_output_tokens=3, stream=True))
    assert raw[-1].type == "response.incomplete"
    assert raw[-1].response.incomplete_details and raw[-1].response.incomplete_details.reason == "max_output_tokens"


def test_what_is_stored_is_followed_listed_and_deleted(client: openai.OpenAI) -> None:
    first = client.responses.create(model=DEMO, input="Hello", instructions="Be kind.", store=True, metadata={"a": "b"})
    assert is_true(client.responses.retrieve(first.id)).to_dict() == first.to_dict()
    second = client.responses.create(model=DEMO, input=QUESTION, previous_response_id=first.id, store=True)
    items = list(client.responses.input_items.list(second.id, order="asc"))
    assert [item.role for item in items] == ["user", "assistant", "user"]  # type: ignore[union-attr]
    assert second.usage and first.usage and second.usage.input_tokens > first.usage.input_tokens
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=DEMO, input="a", previous_response_id=first.id)


def test_one_in_the_background_is_polled_and_cancelled(client: openai.OpenAI) -> None:
    begun = is_true(client.responses.create(model=DEMO, input=QUESTION, temperature=0, background=True))
    assert begun.status == "queued" and begun.output_text == ""
    done = over(client, begun.id)
    assert done.status == "completed"
    assert done.output_text == client.responses.create(model=DEMO, input=QUESTION, temperature=0).output_text
    endless = client.responses.create(model=DEMO, input=QUESTION, background=True, extra_body=LONG)
    cancelled = is_true(client.responses.cancel(endless.id))
    assert cancelled.status == "cancelled" and over(client, endless.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=DEMO, input="a", background=True, store=False)


def test_a_stream_in_the_background_that_was_cut_is_taken_up(client: openai.OpenAI) -> None:
    stream = client.responses.create(
        model=DEMO, input=QUESTION, background=True, stream=True, max_output_tokens=200, extra_body=LONG
    )
    seen: list[ResponseStreamEvent] = []
    for event in stream:
        seen.append(event)
        if event.type == "response.output_text.delta" and len(seen) > 8:
            break
    stream.close()
    created = seen[0]
    assert created.type == "response.created"
    last = seen[-1].sequence_number
    rest = list(client.responses.retrieve(created.response.id, stream=True, starting_after=last))
    assert rest[0].sequence_number == last + 1 and rest[-1].type == "response.incomplete"
    whole = list(client.responses.retrieve(created.response.id, stream=True))
    assert told(whole) == told([*seen, *rest])
    with client.responses.stream(response_id=created.response.id, starting_after=last) as again:
        assert [event.sequence_number for event in again] == [event.sequence_number for event in rest]


def test_the_asynchronous_client_does_the_same(up: Room) -> None:
    async def ask() -> tuple[Response, list[ResponseStreamEvent]]:
        async with openai.AsyncOpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=10) as client:
            begun = await client.responses.create(model=DEMO, input=QUESTION, temperature=0, background=True)
            stream = await client.responses.retrieve(begun.id, stream=True, starting_after=0)
            events = [event async for event in stream]
            return await client.responses.retrieve(begun.id), events

    done, events = asyncio.run(ask())
    assert done.status == "completed" and events[0].sequence_number == 1
    last = events[-1]
    assert last.type == "response.completed" and last.response.to_dict() == done.to_dict()


def test_errors_name_the_parameter(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=DEMO, input="a", text={"format": {"type": "json_object"}})
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "text.format")
    with pytest.raises(openai.BadRequestError) as too_long:
        client.responses.create(model=DEMO, input="a", max_output_tokens=10_000_000)
    assert too_long.value.code == "context_length_exceeded"
