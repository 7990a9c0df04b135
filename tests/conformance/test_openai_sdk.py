"""The official openai client, unmodified, against `mlx-serving up` on real MLX."""

from __future__ import annotations

import json
from collections.abc import Callable

import openai
import pytest
from openai.types.chat import ChatCompletion
from tokenizers import Tokenizer

from cluster.harness import DEMO, DEMO_FOLDER, ENDLESS, Room, until


@pytest.fixture
def client(up: Room) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0)


QUESTION = [{"role": "user", "content": "What is mlx-serving?"}]


def test_a_streamed_answer_means_something(client: openai.OpenAI, figure: Callable[[str], None]) -> None:
    with client.chat.completions.stream(model=DEMO, messages=QUESTION, temperature=0) as events:  # type: ignore[arg-type]
        for _ in events:
            pass
        final = events.get_final_completion()
    text = final.choices[0].message.content or ""
    assert "mac" in text.lower() or "endpoint" in text.lower(), text
    assert final.choices[0].finish_reason == "stop"
    figure(f"{QUESTION[0]['content']} -> {text}")


def test_streamed_and_whole_answers_are_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=DEMO, messages=QUESTION, temperature=0)  # type: ignore[arg-type]
    stream = client.chat.completions.create(
        model=DEMO,
        messages=QUESTION,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},  # type: ignore[arg-type]
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert whole.usage and whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.model == DEMO and whole.object == "chat.completion"


def test_system_and_assistant_messages_are_kept(client: openai.OpenAI) -> None:
    """Defect 15."""
    alone = client.chat.completions.create(model=DEMO, messages=QUESTION, max_tokens=1)  # type: ignore[arg-type]
    talk = [
        {"role": "system", "content": "You are a helpful guide."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! How can I help?"},
        *QUESTION,
    ]
    longer = client.chat.completions.create(model=DEMO, messages=talk, max_tokens=1)  # type: ignore[arg-type]
    assert alone.usage and longer.usage
    assert longer.usage.prompt_tokens > alone.usage.prompt_tokens + 15


def test_max_tokens_stop_and_usage_are_true(client: openai.OpenAI) -> None:
    """Defect 6: stop has an effect, finish_reason is true."""
    cut = client.chat.completions.create(model=DEMO, messages=QUESTION, temperature=0, max_tokens=4)  # type: ignore[arg-type]
    assert cut.choices[0].finish_reason == "length" and cut.usage and cut.usage.completion_tokens == 4
    whole = client.chat.completions.create(model=DEMO, messages=QUESTION, temperature=0)  # type: ignore[arg-type]
    text = whole.choices[0].message.content or ""
    word = text.split()[3]
    stopped = client.chat.completions.create(model=DEMO, messages=QUESTION, temperature=0, stop=[word])  # type: ignore[arg-type]
    assert stopped.choices[0].message.content == text.split(word)[0]
    assert stopped.choices[0].finish_reason == "stop"


def test_a_seed_repeats_itself_and_seeds_differ(client: openai.OpenAI) -> None:
    def sampled(seed: int) -> str:
        answer = client.chat.completions.create(
            model=DEMO, messages=[{"role": "user", "content": "zzz"}], seed=seed, temperature=1.8, max_tokens=30
        )
        return answer.choices[0].message.content or ""

    assert sampled(11) == sampled(11)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_logprobs_are_those_of_the_sampled_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=DEMO,
        messages=QUESTION,
        temperature=0,
        max_tokens=8,
        logprobs=True,
        top_logprobs=3,  # type: ignore[arg-type]
    )
    content = answer.choices[0].logprobs
    assert content and content.content and len(content.content) == 8
    for token in content.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        # Greedy: the sampled token is the best one.
        assert token.top_logprobs[0].token == token.token
        assert abs(token.top_logprobs[0].logprob - token.logprob) < 1e-4
    assert "".join(token.token for token in content.content) == answer.choices[0].message.content


def test_n_choices_come_with_their_indices(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=DEMO,
        messages=QUESTION,
        n=3,
        seed=1,
        temperature=1.5,
        max_tokens=12,  # type: ignore[arg-type]
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage and answer.usage.completion_tokens <= 36


def test_penalties_and_bias_have_an_effect(client: openai.OpenAI) -> None:
    """Defect 6: an answer that may not end repeats itself enough for every penalty to bite."""

    def greedy(**more: object) -> str:
        answer = client.completions.create(
            model=DEMO,
            prompt="Hello",
            temperature=0,
            max_tokens=200,
            logit_bias=ENDLESS,
            **more,  # type: ignore[arg-type]
        )
        return answer.choices[0].text

    plain = greedy()
    assert greedy(frequency_penalty=2.0) != plain
    assert greedy(presence_penalty=2.0, frequency_penalty=1.0) != plain
    assert greedy(extra_body={"repetition_penalty": 1.9}) != plain
    first = client.chat.completions.create(
        model=DEMO,
        messages=QUESTION,
        temperature=0,
        max_tokens=1,
        logprobs=True,
        top_logprobs=2,  # type: ignore[arg-type]
    )
    best = token_id(first.choices[0].message.content or "")
    other = client.chat.completions.create(
        model=DEMO,
        messages=QUESTION,
        temperature=0,
        max_tokens=1,
        logit_bias={str(best): -100},  # type: ignore[arg-type]
    )
    assert other.choices[0].message.content != first.choices[0].message.content


def token_id(text: str) -> int:
    tokenizer = Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json"))
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) == 1
    return ids[0]


def test_plain_completions_work(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=DEMO, prompt="mlx-serving is", max_tokens=8, temperature=0)
    assert answer.choices[0].finish_reason in ("length", "stop") and answer.choices[0].text
    two = client.completions.create(model=DEMO, prompt=["mlx-serving is", "An agent"], max_tokens=4, temperature=0)
    assert [choice.index for choice in two.choices] == [0, 1]


def test_models_are_listed_with_their_true_facts(up: Room, client: openai.OpenAI) -> None:
    assert DEMO in [model.id for model in client.models.list()]
    assert client.models.retrieve(DEMO).id == DEMO
    facts = next(model for model in up.status()["models"] if model["model"] == DEMO)
    assert facts["parameters"] > 100_000 and facts["context_length"] > 0 and facts["weights_bytes"] > 100_000


def test_errors_are_the_sdks_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=QUESTION)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=DEMO, messages=QUESTION, max_tokens=10_000_000)  # type: ignore[arg-type]
    assert refused.value.code == "context_length_exceeded"


def test_a_request_with_an_idempotency_key_is_answered_once(client: openai.OpenAI) -> None:
    def ask(question: str) -> tuple[str, str | None, str | None]:
        raw = client.chat.completions.with_raw_response.create(
            model=DEMO,
            messages=[{"role": "user", "content": question}],
            temperature=1,
            max_tokens=24,
            extra_headers={"Idempotency-Key": "sdk-1"},
        )
        answer = raw.parse()
        return answer.id, answer.choices[0].message.content, raw.headers.get("idempotent-replayed")

    first, again = ask("What is mlx-serving?"), ask("What is mlx-serving?")
    assert first[2] is None and again == (first[0], first[1], "true")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        ask("What is a Mac?")
    assert refused.value.code == "idempotency_key_reused"


def test_a_stream_with_an_idempotency_key_is_the_stream_that_the_sdk_knows(client: openai.OpenAI) -> None:
    def ask() -> list[str]:
        chunks = client.chat.completions.create(
            model=DEMO,
            messages=QUESTION,  # type: ignore[arg-type]
            temperature=1,
            max_tokens=24,
            stream=True,
            extra_headers={"Idempotency-Key": "sdk-2"},
        )
        return [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]

    first = ask()
    assert "".join(first) and ask() == first


def test_a_batch_is_what_the_sdk_knows(client: openai.OpenAI) -> None:
    body = {"model": DEMO, "messages": QUESTION, "temperature": 0}
    asked = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body | more}
        for name, more in (("a", {}), ("b", {"max_tokens": 3}), ("c", {"temperature": 9}))
    ]
    text = "".join(json.dumps(line) + "\n" for line in asked)
    expires = {"anchor": "created_at", "seconds": 86_400}
    file = client.files.create(file=("in.jsonl", text.encode()), purpose="batch", expires_after=expires)  # type: ignore[arg-type]
    assert file.expires_at == file.created_at + 86_400
    assert client.files.content(file.id).text == text
    begun = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"of": "conformance"},
        extra_headers={"Idempotency-Key": "sdk-3"},
    )
    done = until("the batch is over", lambda: over(client.batches.retrieve(begun.id)))
    assert done.status == "completed" and done.output_file_id and done.error_file_id
    listed = [client.files.retrieve(file.id), *client.files.list(purpose="batch_output")]
    # The SDK takes anything for its types; its own models, asked to check, do not.
    for shown in (begun, done, *client.batches.list(), *listed):
        type(shown).model_validate(shown.to_dict(), strict=True)
    output = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    answers = {line["custom_id"]: ChatCompletion.model_validate(line["response"]["body"]) for line in output}
    whole = client.chat.completions.create(model=DEMO, messages=QUESTION, temperature=0)  # type: ignore[arg-type]
    assert answers.keys() == {"a", "b"}
    assert answers["a"].choices[0].message == whole.choices[0].message
    assert answers["b"].choices[0].finish_reason == "length"
    (error,) = [json.loads(line) for line in client.files.content(done.error_file_id).text.splitlines()]
    assert (error["custom_id"], error["response"]["status_code"]) == ("c", 400)


def over(batch: openai.types.Batch) -> openai.types.Batch | None:
    return batch if batch.status in ("completed", "failed", "expired", "cancelled") else None


def test_a_file_that_is_for_nothing_here_is_refused_with_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("in.jsonl", b"{}"), purpose="fine-tune")
    assert (refused.value.code, refused.value.param) == ("invalid_value", "purpose")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_0")
