"""`mlx-serving models`: what an operator says of a model is what the Macs do."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from cluster.client import ask, chat
from cluster.harness import BINARY, DEMO, Room, until


def models(room: Room, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(BINARY), "models", *words, "--url", room.url, "--home", str(room.folder / "coordinator-home")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def shown(room: Room) -> dict[str, Any]:
    done = models(room, "ls", "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["models"][0]


def holders(room: Room) -> int:
    return sum(runtime["state"] == "ready" for runtime in room.runtimes())


def test_a_model_is_on_as_many_macs_as_was_said(room: Room) -> None:
    room.coordinator()
    room.agent("one", "demo", fake="")
    room.agent("two", "demo", fake="")
    room.ready(nodes=2)
    first = models(room, "set", DEMO, "--max", "1")
    assert first.returncode == 0 and "0 to 1" in first.stdout, first
    until("one of them has unloaded it", lambda: holders(room) == 1)
    assert len(shown(room)["placed_on"]) == 1 and sorted(shown(room)["offered_by"]) == ["one", "two"]
    assert ask(room.url, chat(DEMO, max_tokens=2)).status_code == 200
    assert models(room, "set", DEMO, "--max", "any", "--min", "2", "--pin").returncode == 0
    until("both hold it", lambda: holders(room) == 2)
    until("both are its places", lambda: len(shown(room)["placed_on"]) == 2)
    assert (shown(room)["pinned"], shown(room)["replicas_min"]) == (True, 2)


def test_a_slip_of_the_pen_changes_nothing_and_says_what_was_meant(room: Room) -> None:
    room.coordinator()
    room.agent("one", "demo", fake="")
    room.ready()
    slip = models(room, "set", DEMO[:-1], "--pin")
    assert slip.returncode == 4 and f"Did you mean {DEMO}?" in slip.stderr, slip
    nothing = models(room, "set", DEMO)
    assert nothing.returncode == 2 and "--pin" in nothing.stderr, nothing
    assert shown(room)["pinned"] is False
