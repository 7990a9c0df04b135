"""Figures, not promises: what batching and the sampler give on this machine. Nothing here asserts a time."""

import time
from typing import Any

from agent import Agent
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


def test_throughput_of_eight_rows_against_one(runtime: Agent) -> None:
    greedy: dict[str, Any] = {"temperature": 0.0}
    tokens_per_second(runtime, [greedy])
    one, eight = tokens_per_second(runtime, [greedy]), tokens_per_second(runtime, [greedy] * 8)
    mixed = tokens_per_second(runtime, MIXED)
    print(f"\ntokens/s: 1 row {one:.0f}, 8 rows {eight:.0f} (x{eight / one:.1f}), 8 rows mixed {mixed:.0f}")
