"""A runtime that fails is left alone, and is trusted again once it has proved itself."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx

from cluster.client import TIMEOUT_S
from cluster.harness import BINARY, DEMO, Room, until

# The model call of node one raises for prompts that hold this id; neither an ordinary prompt nor the canary does.
FAULT = 1_001


def complete(room: Room, prompt: list[int]) -> httpx.Response:
    body = {"model": DEMO, "prompt": prompt, "max_tokens": 4, "temperature": 0}
    return httpx.post(f"{room.url}/v1/completions", json=body, timeout=TIMEOUT_S)


def explained(room: Room, node: str) -> str:
    command = [BINARY, "explain", "node", node, "--url", room.url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def gauge(room: Room, node: str) -> float:
    lines = httpx.get(f"{room.url}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("mlx_breaker_state{") and f'node="{node}"' in line]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


def test_a_failing_runtime_gets_no_more_work_until_a_canary_has_passed(room: Room) -> None:
    room.coordinator()
    # Two slots each, so that a burst needs both.
    room.agent("one", "demo", fake=f"fail_token={FAULT},t1_s=0.01", more=["--slots", "2"])
    room.agent("two", "demo", fake="t1_s=0.01", more=["--slots", "2"])
    room.ready(nodes=2)
    numbers = {node["name"]: str(node["node"]) for node in room.status()["nodes"]}

    def burst(prompt: list[int]) -> set[str]:
        """More than one node takes alone; all are answered. Returns the nodes that did."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: complete(room, [*prompt, number]), range(10, 26)))
        assert [answer.status_code for answer in answers] == [200] * 16
        return {answer.headers["x-mlx-node"] for answer in answers}

    # What fails on one is tried on two.
    until("the breaker of node one opens", lambda: burst([5, FAULT]) == {numbers["two"]} and gauge(room, "one") == 4.0)
    words = explained(room, "one")
    assert "breaker open" in words and "streams were reset" in words, words
    ordinary = burst([5, 6])
    # On a slow machine its time may be over by now.
    assert ordinary == {numbers["two"]} or gauge(room, "one") != 4.0

    def trusted() -> bool:
        burst([5, 6])
        return gauge(room, "one") == 0.0

    until("node one has proved itself", trusted, 60)
    assert "breaker" not in explained(room, "one")
    assert burst([5, 6]) == set(numbers.values()), "nothing is sent to a node that is trusted"
