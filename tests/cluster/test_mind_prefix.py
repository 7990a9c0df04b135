"""What two prompts of one tenant have in common is computed once, on the node that has it; tenants share nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from cluster.client import TIMEOUT_S
from cluster.harness import DEMO, Room

BLOCK = 256
PREFIXES = 6


@dataclass(frozen=True)
class Seen:
    """An answer of one token, as far as it matters here."""

    node: str
    affinity: str
    cached_tokens: int
    seconds: float


def long_prompt(number: int, tail: int) -> list[int]:
    """Four blocks that belong to `number`, then a question of its own."""
    return [10 + (number * 31 + position * 7) % 900 for position in range(4 * BLOCK)] + [20 + tail] * 8


def ask(room: Room, prompt: list[int], token: str) -> Seen:
    body = {"model": DEMO, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    began = time.monotonic()
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.post(f"{room.url}/v1/completions", json=body, headers=headers, timeout=TIMEOUT_S)
    seconds = time.monotonic() - began
    assert answer.status_code == 200, answer.text
    details = answer.json()["usage"].get("prompt_tokens_details") or {}
    node, affinity = answer.headers["x-mlx-node"], answer.headers["x-mlx-affinity"]
    return Seen(node, affinity, details.get("cached_tokens", 0), seconds)


def decisions(room: Room, affinity: str) -> float:
    lines = httpx.get(f"{room.url}/metrics").text.splitlines()
    label = f'mlx_route_decisions_total{{affinity="{affinity}"}} '
    return sum(float(line.removeprefix(label)) for line in lines if line.startswith(label))


def test_a_prefix_is_computed_once_and_for_its_tenant_only(room: Room, figure: Callable[[str], None]) -> None:
    room.coordinator()
    for name in ("one", "two"):
        room.agent(name, "demo", fake="prefill_tps=2000,t1_s=0.01")
    room.ready(nodes=2)
    # At once, so that both nodes get some of them.
    with ThreadPoolExecutor(PREFIXES) as pool:
        cold = list(pool.map(lambda number: ask(room, long_prompt(number, 0), "ada"), range(PREFIXES)))
    assert {seen.node for seen in cold} == {"1", "2"}
    assert {seen.cached_tokens for seen in cold} == {0}

    warm = [ask(room, long_prompt(number, 1), "ada") for number in range(PREFIXES)]
    assert [seen.node for seen in warm] == [seen.node for seen in cold]
    assert all(seen.cached_tokens >= 3 * BLOCK for seen in warm), warm
    assert {seen.affinity for seen in warm} == {"prefix"}

    assert decisions(room, "prefix") == PREFIXES
    other = [ask(room, long_prompt(number, 1), "bob") for number in range(PREFIXES)]
    assert {seen.cached_tokens for seen in other} == {0}, "another tenant learned from a cache"
    assert "prefix" not in {seen.affinity for seen in other}
    first, again = (statistics.median(seen.seconds for seen in some) for some in (other, warm))
    figure(f"time to the first token with a warm prefix: {again * 1e3:.0f} ms, cold {first * 1e3:.0f} ms")
