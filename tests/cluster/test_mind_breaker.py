"""A runtime that fails is left alone, and is trusted again once it has proved itself."""

from __future__ import annotations

import subprocess

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
    room.agent("one", "demo", fake=f"fail_token={FAULT},t1_s=0.01")
    room.agent("two", "demo", fake="t1_s=0.01")
    room.ready(nodes=2)
    numbers = {node["name"]: str(node["node"]) for node in room.status()["nodes"]}

    # Each is answered: what fails on one is tried on two.
    for attempt in range(40):
        answer = complete(room, [5, FAULT, 7 + attempt])
        assert answer.status_code == 200 and answer.headers["x-mlx-node"] == numbers["two"], answer.text
        if gauge(room, "one") == 4.0:
            break
    words = explained(room, "one")
    assert "breaker open" in words and "streams were reset" in words, words
    served = [complete(room, [5, 6, 7 + number]) for number in range(6)]
    assert {answer.headers["x-mlx-node"] for answer in served} == {numbers["two"]}

    def trusted() -> bool:
        assert complete(room, [5, 6, 8]).status_code == 200
        return gauge(room, "one") == 0.0

    until("node one has proved itself", trusted, 60)
    assert "breaker" not in explained(room, "one")
    nodes = {complete(room, [9, 6, number]).headers["x-mlx-node"] for number in range(40)}
    assert numbers["one"] in nodes, "nothing is sent to a node that is trusted"
