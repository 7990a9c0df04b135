"""Answers of real MLX go on after kill -9 of their runtime, and say what they would have said.

Prefill and decode may round differently, so a token that was all but even with another may change places with it: how
often that happens is told as a figure.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cluster.client import TIMEOUT_S
from cluster.cuts import COMPLETIONS, CutRoom
from cluster.harness import DEMO, ENDLESS, Room, until
from cluster.test_real_mlx import PROMPTS
from cluster.test_resuming import once_told
from cluster.transcript import Transcript, transcribe

# Characters of the first answer after which a runtime is killed; the others are cut wherever they are by then.
CUTS = [1, 40, 150, 300]
TOKENS = 160
GREEDY = {"temperature": 0}
SAMPLED = {"temperature": 1, "top_p": 0.9, "seed": 41, "frequency_penalty": 0.5}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutRoom]:
    room = CutRoom(tmp_path_factory.mktemp("real"))
    try:
        room.coordinator()
        for name in ("one", "two"):
            room.agent(name, "demo")
        room.ready(nodes=2)
        yield room
    finally:
        room.close()


def told(room: Room, prompt: str, sampling: dict[str, object], watch: Callable[[Transcript], None]) -> Transcript:
    body = {"model": DEMO, "prompt": prompt, "max_tokens": TOKENS, "logit_bias": ENDLESS, **sampling}
    with httpx.Client(base_url=room.url, timeout=TIMEOUT_S) as client:
        return transcribe(client, COMPLETIONS, body, watch)


def together(
    room: Room, sampling: dict[str, object], characters: int = 0, then: Callable[[], None] = lambda: None
) -> list[Transcript]:
    """An answer to each prompt; `then` happens when the first is so long."""
    watches = [once_told(characters, then), *([lambda _: None] * (len(PROMPTS) - 1))]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        tasks = [
            pool.submit(told, room, prompt, sampling, watch) for prompt, watch in zip(PROMPTS, watches, strict=True)
        ]
        return [task.result() for task in tasks]


def counts(seen: Transcript) -> tuple[int, int]:
    """Prompt and answer; what a cache had of the prompt is another matter each time."""
    assert seen.usage
    return seen.usage["prompt_tokens"], seen.usage["completion_tokens"]


def kill_where_it_is_busiest(room: Room) -> None:
    busiest = max(room.status()["nodes"], key=lambda node: node["running"])
    os.kill(room.runtime_pid(busiest["name"]), signal.SIGKILL)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_answers_of_real_mlx_go_on_as_they_would_have(
    real: CutRoom, sampling: dict[str, object], figure: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    whole = together(real, sampling)
    answers = cut = different = 0
    for characters in CUTS:
        real.ready(nodes=2)
        seen = together(real, sampling, characters, lambda: kill_where_it_is_busiest(real))
        for mine, other in zip(seen, whole, strict=True):
            assert mine.done and not mine.broken and not mine.faults, mine
            assert counts(mine) == counts(other) and mine.choices[0].finish == "length"
            answers += 1
            if real.cuts(mine):
                cut += 1
                different += mine.text != other.text
            else:
                assert mine.text == other.text
    assert cut >= len(CUTS)
    figure(f"real MLX, {request.node.callspec.id}: {cut} of {answers} answers were cut, {different} read differently")
    assert different == 0


def test_one_mac_with_up_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    room = Room(tmp_path)
    try:
        room.up()
        until("it serves", lambda: room.answers("/readyz"))
        room.ready()
        (node,) = room.status()["nodes"]

        def strike() -> None:
            os.kill(room.runtime_pid(node["name"]), signal.SIGKILL)

        whole = told(room, PROMPTS[1], GREEDY, lambda _: None)
        seen = told(room, PROMPTS[1], GREEDY, once_told(50, strike))
        assert seen.done and not seen.broken and not seen.faults, seen
        assert (seen.text, counts(seen)) == (whole.text, counts(whole))
        assert room.runtimes()[0]["restarts"] == 1
    finally:
        room.close()
