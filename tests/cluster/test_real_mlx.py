"""Real MLX behind real processes: two models on two agents, true batching, equality with mlx-lm itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.client import Answer, ask, chat, gather, stream
from cluster.harness import DEMO, DEMO_FOLDER, ROOT, Room, until
from cluster.test_hangups import hang_up_after, rows

TINY = "tiny-llama"
PROMPTS = [
    "mlx-serving is",
    "An agent",
    "The coordinator keeps one global queue, and every Mac in the room reports what its GPU can carry, so that",
    "Hello",
    "What happens when a Mac dies in the night? " * 6,
    "count to twenty",
    "Raft",
    "A join token",
]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Two agents, each with its own model, on real MLX."""
    folder = tmp_path_factory.mktemp("real")
    tiny = folder / TINY
    maker = [sys.executable, "-m", "tiny_models", str(tiny), "--arch", "llama"]
    subprocess.run(maker, cwd=ROOT / "python" / "tests", check=True)
    room = Room(folder)
    try:
        room.coordinator()
        room.agent("one", "demo")
        room.agent("two", str(tiny))
        room.ready(DEMO)
        room.ready(TINY)
        yield room
    finally:
        room.close()


def test_two_models_are_resident_at_once_on_two_agents(real: Room) -> None:
    bodies = [chat(DEMO, max_tokens=12), chat(TINY, max_tokens=12)] * 4
    answers = gather(real.url, bodies)
    assert all(answer.clean for answer in answers), answers
    holders = {node["name"]: [runtime["model"] for runtime in node["models"]] for node in real.status()["nodes"]}
    assert holders == {"one": [DEMO], "two": [TINY]}


def reference(folder: Path, prompts: list[str], max_tokens: int) -> list[str]:
    """What mlx-lm's own generate says, in a process of its own."""
    script = """
import json, sys
import mlx_lm
folder, prompts, max_tokens = json.load(sys.stdin)
model, tokenizer = mlx_lm.load(folder)
def answer(prompt):
    ids = [r.token for r in mlx_lm.stream_generate(model, tokenizer, tokenizer.encode(prompt), max_tokens=max_tokens)]
    # generate() itself joins these tokens; it only drops a leading space, which an API must not.
    return tokenizer.decode([token for token in ids if token not in tokenizer.eos_token_ids])
print(json.dumps([answer(prompt) for prompt in prompts]))
"""
    asked = json.dumps([str(folder), prompts, max_tokens])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def completion(prompt: str, **more: object) -> dict[str, object]:
    return {"model": DEMO, "prompt": prompt, "temperature": 0, "max_tokens": 40, **more}


def complete(room: Room, bodies: list[dict[str, object]]) -> list[Answer]:
    async def all_of_them() -> list[Answer]:
        return list(await asyncio.gather(*(stream(room.url, body, path="/v1/completions") for body in bodies)))

    return asyncio.run(all_of_them())


def test_greedy_answers_equal_mlx_lms_own_alone_and_in_a_ragged_batch(real: Room) -> None:
    """Defect 8: ragged batches give each prompt its own answer."""
    expected = reference(DEMO_FOLDER, PROMPTS, 40)
    alone = [ask(real.url, completion(prompt), "/v1/completions").json()["choices"][0]["text"] for prompt in PROMPTS]
    assert alone == expected
    together = complete(real, [completion(prompt) for prompt in PROMPTS])
    assert [answer.text for answer in together] == expected


def test_seeded_answers_repeat_themselves_alone_and_batched(real: Room) -> None:
    bodies = [completion(prompt, temperature=2, min_p=0.001, seed=41 + at) for at, prompt in enumerate(PROMPTS)]
    alone = [complete(real, [body])[0].text for body in bodies]
    together = [answer.text for answer in complete(real, bodies)]
    assert together == alone
    others = [answer.text for answer in complete(real, [{**body, "seed": 9_999} for body in bodies])]
    assert others != alone


def test_eight_streams_advance_side_by_side(real: Room, figure: Callable[[str], None]) -> None:
    """That they share each call of the model is the runtime's own test, which counts calls."""
    # Its longest answer, some 200 tokens.
    body = chat(DEMO, "Tell me a story about a Mac mini.", max_tokens=300)

    async def eight() -> list[int]:
        """Whose piece came when."""
        order: list[int] = []
        each = (stream(real.url, body, on_piece=lambda _, own=number: order.append(own)) for number in range(8))
        answers = await asyncio.gather(*each)
        assert all(answer.clean for answer in answers), answers
        return order

    pieces: list[int] = []
    # The first streams of a model run few at a time, until its speed is known.
    for _ in range(5):
        order = asyncio.run(eight())
        first, last = max(map(order.index, range(8))), len(order) - max(map(order[::-1].index, range(8)))
        pieces = [order[first:last].count(number) for number in range(8)]
        if min(pieces) > 100:
            break
    assert min(pieces) > 100, pieces

    def rate(streams: int) -> float:
        """Tokens per second over all streams; asked for whole, which keeps the client's own work out of the figure."""
        started = time.monotonic()
        with ThreadPoolExecutor(streams) as clients:
            answers = list(clients.map(lambda _: ask(real.url, body).json(), range(streams)))
        return sum(answer["usage"]["completion_tokens"] for answer in answers) / (time.monotonic() - started)

    alone, together = rate(1), rate(8)
    figure(f"{alone:.0f} tokens/s for one stream, {together:.0f} for eight together ({together / alone:.1f} x)")


def test_a_hundred_hang_ups_leak_nothing_on_real_mlx(real: Room) -> None:
    async def storm() -> None:
        gate = asyncio.Semaphore(8)

        async def one(pieces: int) -> None:
            async with gate:
                await hang_up_after(real.url, pieces)

        await asyncio.gather(*(one(number % 7) for number in range(100)))

    pids = {runtime["pid"] for runtime in real.runtimes()}
    asyncio.run(storm())
    until("every row is gone", lambda: rows(real) == 0 and bool(real.runtimes()))
    assert {runtime["pid"] for runtime in real.runtimes()} == pids, "a runtime died of it"
    assert gather(real.url, [chat(DEMO, max_tokens=5)])[0].clean


def test_the_fake_runtime_and_the_real_one_look_the_same_to_a_client(real: Room, tmp_path: Path) -> None:
    """The same small trace against both: statuses, finish reasons, usage and error codes."""
    trace = [
        chat(DEMO, max_tokens=3),
        chat(DEMO, max_tokens=1, temperature=0.9, seed=3),
        chat(DEMO, "x" * 400, max_tokens=2),
        chat(DEMO, max_tokens=5, logprobs=True, top_logprobs=2),
        chat(DEMO, max_tokens=2, n=2),
        chat(DEMO, max_tokens=10_000_000),
        chat(DEMO, temperature=9),
        chat("nobody"),
    ]
    fake = Room(tmp_path)
    try:
        fake.coordinator()
        fake.agent("one", "demo", fake="t1_s=0.005")
        fake.ready()
        assert [outcome(fake, body) for body in trace] == [outcome(real, body) for body in trace]
    finally:
        fake.close()


def outcome(room: Room, body: dict[str, object]) -> object:
    response = ask(room.url, body)
    seen = response.json()
    if response.status_code != 200:
        return response.status_code, seen["error"]["code"], seen["error"]["param"]
    choices = [(choice["index"], choice["finish_reason"], choice["logprobs"] is not None) for choice in seen["choices"]]
    return response.status_code, sorted(seen), choices, seen["usage"]
