"""Figures, not promises: what batching and the sampler give on this machine. Nothing here asserts a time."""

import time
from pathlib import Path
from typing import Any

from agent import Agent, agent
from test_generation import prompt

MIXED: list[dict[str, Any]] = [
    {"temperature": 0.5 + 0.1 * n, "top_p": 0.9 - 0.02 * n, "top_k": 20 + n, "frequency_penalty": 0.1} for n in range(8)
]


def tokens_per_second(runtime: Agent, samplings: list[dict[str, Any]], count: int = 120) -> float:
    """All rows together."""
    started = time.monotonic()
    rows = [runtime.start(prompt(16), count, sampling) for sampling in samplings]
    made = sum(len(runtime.finish(row).ids) for row in rows)
    assert made == count * len(samplings)
    return made / (time.monotonic() - started)


def steps_per_second(running: Agent, seed: int, salt: str | None) -> float:
    """Of a stream of short answers to prompts nobody asked before, eight at a time; all of them are worth keeping."""
    started, before = time.monotonic(), len(running.frames)
    rows = [running.start(prompt(200, seed + n), 60, cache_salt=salt) for n in range(24)]
    assert {running.finish(row).finish for row in rows} == {"length"}
    steps = sum(frame[0] == "step" for frame in running.frames[before:])
    return steps / (time.monotonic() - started)


def test_prefill_of_a_warm_prompt_and_what_the_prefix_cache_costs(llama: Path) -> None:
    with agent() as running:
        running.load(llama, prefill_chunk=256, max_rows=8)
        cold, warm = (running.run(prompt(1500), 2, cache_salt="s").last for _ in range(2))
        assert (cold["cached_tokens"], warm["cached_tokens"]) == (0, 1472)
        print(f"\nprefill of 1500 tokens: cold {cold['prefill_s']:.3f} s, warm {warm['prefill_s']:.3f} s")
        off, on = list[float](), list[float]()
        for turn in range(3):
            off.append(steps_per_second(running, 1000 + 100 * turn, None))
            on.append(steps_per_second(running, 2000 + 100 * turn, "s"))
        assert running.ask("info")["prefix_cache"]["entries"] == 1 + 3 * 24
        print(f"steps/s without the prefix cache {max(off):.0f}, with it {max(on):.0f} (x{max(on) / max(off):.2f})")


def test_throughput_of_eight_rows_against_one(runtime: Agent) -> None:
    greedy: dict[str, Any] = {"temperature": 0.0}
    tokens_per_second(runtime, [greedy])
    one, eight = tokens_per_second(runtime, [greedy]), tokens_per_second(runtime, [greedy] * 8)
    mixed = tokens_per_second(runtime, MIXED)
    warm: list[dict[str, Any]] = [{"temperature": 0.7, "top_p": 0.9}] * 8
    free, seeded = list[float](), list[float]()
    for _ in range(3):
        free.append(tokens_per_second(runtime, warm))
        seeded.append(tokens_per_second(runtime, [one | {"seed": n} for n, one in enumerate(warm)]))
    print(f"\ntokens/s of 8 sampled rows: without seeds {max(free):.0f}, with seeds {max(seeded):.0f}")
    print(f"tokens/s: 1 row {one:.0f}, 8 rows {eight:.0f} (x{eight / one:.1f}), 8 rows mixed {mixed:.0f}")
