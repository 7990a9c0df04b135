"""More models than memory: a request brings its model into memory, in place of one that nobody needs at the moment."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

from cluster.client import Answer, chat, stream
from cluster.harness import DEMO_FOLDER, Room, until

MODELS = ("alpha", "beta", "gamma")
FAKE = "load_s=0.5,t1_s=0.01"


def folders(room: Room) -> list[str]:
    made: list[Path] = [room.folder / name for name in MODELS]
    for folder in made:
        shutil.copytree(DEMO_FOLDER, folder)
    return [str(folder) for folder in made]


def footprint(folder: Path, model: str) -> int:
    """What one of them reserves, as an agent with room for all reports it."""
    scratch = Room(folder)
    folder.mkdir()
    try:
        scratch.coordinator()
        scratch.agent("large", model, fake=FAKE)
        scratch.ready("alpha")
        return int(scratch.runtimes()[0]["footprint_bytes"])
    finally:
        scratch.close()


def held(room: Room) -> set[str]:
    return {runtime["model"] for runtime in room.runtimes() if runtime["state"] == "ready"}


def test_three_models_take_turns_in_memory_for_two(room: Room) -> None:
    models = folders(room)
    each = footprint(room.folder / "scratch", models[0])
    room.coordinator()
    room.agent("one", *models, fake=FAKE, more=["--memory", str(2.5 * each / (1 << 30))])
    # What an agent is started with is loaded at once, as far as there is room.
    until("two of them are in memory", lambda: len(held(room)) == 2)
    cold = (set(MODELS) - held(room)).pop()

    over: list[dict[str, int]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            nodes = room.status()["nodes"]
            over.extend(node for node in nodes if node["reserved_bytes"] > node["gpu_budget_bytes"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    first = asyncio.run(stream(room.url, chat(cold, max_tokens=3)))
    assert first.clean, first
    assert any("loading" in comment for comment in first.comments), first.comments
    for model in MODELS:
        answer: Answer = asyncio.run(stream(room.url, chat(model, max_tokens=3)))
        assert answer.clean, (model, answer)
        assert len(held(room)) <= 2
    stop.set()
    watcher.join()
    assert over == [], "more was reserved than the node may hold"


def test_a_model_that_never_fits_is_refused_at_once_and_says_why(room: Room) -> None:
    models = folders(room)
    each = footprint(room.folder / "scratch", models[0])
    room.coordinator()
    room.agent("one", models[0], fake=FAKE, more=["--memory", str(0.5 * each / (1 << 30))])
    until("the model is offered", lambda: [r for r in room.runtimes() if r["state"] == "offered"])
    answer = asyncio.run(stream(room.url, chat("alpha", max_tokens=3)))
    assert answer.status == 503 and answer.error and answer.error["code"] == "no_capacity", answer
    assert "alpha" in answer.error["message"] and answer.headers["x-should-retry"] == "false", answer
