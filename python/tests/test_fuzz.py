"""Whatever bytes arrive, the process lives, answers in step, and the next request works."""

import random
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]
import pytest

from agent import Agent, agent
from test_generation import prompt

_pack = cast(Any, msgpack).packb
SEEDS: list[Any] = [
    [
        "generate",
        10**9,
        {"ids": [20, 21], "max_tokens": 2, "sampling": {"temperature": 1.0, "seed": 1}, "stop_ids": []},
    ],
    ["generate", 10**9, {"ids": [22] * 200, "max_tokens": 2, "cache_salt": "s", "prefill_chunk": 64, "generated": 9}],
    ["cancel", [10**9]],
    ["tokenize", 10**9, "some text", True],
    ["list", 10**9],
    ["info", 10**9],
    ["load", 10**9, {"path": "/none", "prefill_chunk": 8, "max_rows": 2, "cache_bytes": 9, "kv_tokens": 9}],
]


@pytest.fixture
def runtime(llama: Path) -> Generator[Agent]:
    """A runtime of its own: mutations reuse row numbers, which the contract leaves to the agent to avoid."""
    with agent() as running:
        running.load(llama)
        yield running
        running.faults.clear()


def frame(body: bytes) -> bytes:
    """With its length in front."""
    return struct.pack("<I", len(body)) + body


def mutated(body: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, dropped or doubled."""
    out = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out)) if out else 0
        match chance.randrange(3):
            case 0 if out:
                out[at] = chance.randrange(256)
            case 1 if out:
                del out[at]
            case _:
                out[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 3)))
    return bytes(out)


def survives(runtime: Agent, expected: list[int]) -> None:
    """A question and a row work."""
    assert "rows" in runtime.ask("list")
    assert runtime.run(prompt(20), 6).ids == expected


def test_frames_of_random_bytes_are_answered_and_disturb_nothing(runtime: Agent) -> None:
    chance = random.Random(11)
    expected = runtime.run(prompt(20), 6).ids
    already = len(runtime.errors)
    for _ in range(300):
        runtime.send_bytes(frame(chance.randbytes(chance.randint(0, 60))))
    survives(runtime, expected)
    assert len(runtime.errors) - already == 300
    assert {error[1] for error in runtime.errors[already:]} == {"bad_frame"}


def test_mutated_frames_disturb_nothing(runtime: Agent) -> None:
    chance = random.Random(12)
    expected = runtime.run(prompt(20), 6).ids
    for _ in range(600):
        body = _pack(chance.choice(SEEDS))
        # A mutation may spell `unload` or `shutdown` only by changing six letters; three bytes cannot.
        runtime.send_bytes(frame(mutated(body, chance)))
    survives(runtime, expected)
    rows = [row[0] for row in runtime.ask("list")["rows"]]
    runtime.send(["cancel", rows])
    runtime.wait(lambda: runtime.ask("list") == {"rows": []})


def test_a_frame_over_the_limit_is_thrown_away_and_the_stream_stays_in_step(runtime: Agent) -> None:
    expected = runtime.run(prompt(20), 6).ids
    already = len(runtime.errors)
    length = (64 << 20) + 1
    runtime.send_bytes(struct.pack("<I", length))
    block = b"\xc1" * (1 << 20)
    for _ in range(64):
        runtime.send_bytes(block)
    runtime.send_bytes(b"\xc1")
    survives(runtime, expected)
    assert [error[1] for error in runtime.errors[already:]] == ["bad_frame"]


def test_a_flood_of_questions_is_answered_or_turned_away_but_never_lost(runtime: Agent) -> None:
    calls = [runtime.question("info") for _ in range(3000)]
    runtime.wait(lambda: all(call in runtime.replies for call in calls))
    assert {runtime.replies[call][0] for call in calls} <= {"reply", "error"}
    assert {runtime.replies[call][1] for call in calls if runtime.replies[call][0] == "error"} <= {"busy"}
