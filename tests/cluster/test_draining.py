"""A Mac is emptied under load: what it alone holds it serves until another does, and no request fails."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from cluster.client import ask, chat
from cluster.harness import BINARY, DEMO, Room, until
from cluster.load import Load

SLOW = "t1_s=0.03"


def command(room: Room, *words: str) -> list[str]:
    return [str(BINARY), *words, "--url", room.url, "--home", str(room.folder / "coordinator-home")]


def run(room: Room, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(room, *words), capture_output=True, text=True, check=False, timeout=60)


class Draining:
    """`mlx-serving drain`, as it runs and speaks."""

    def __init__(self, room: Room, node: str) -> None:
        self._said = room.folder / "drain.said"
        with self._said.open("w") as said:
            words = command(room, "drain", node)
            self.process = subprocess.Popen(words, stderr=said, stdout=subprocess.PIPE, text=True)

    def said(self) -> str:
        return Path(self._said).read_text()

    def says(self, words: str) -> None:
        until(f"drain says `{words}`", lambda: words in self.said())


def node(room: Room, name: str) -> dict[str, Any]:
    return next(entry for entry in room.status()["nodes"] if entry["name"] == name)


def test_a_mac_is_replaced_under_load_and_no_request_fails(room: Room) -> None:
    room.coordinator()
    old = room.agent("old", "demo", fake=SLOW)
    room.ready()
    load = Load([room.url], 4, lambda line: chat(DEMO, f"line {line}", max_tokens=12, seed=line))
    load.more(4)
    draining = Draining(room, "old")
    draining.says(f"it alone holds {DEMO}, and serves it until another Mac does")
    load.more(8)
    assert draining.process.poll() is None and node(room, "old")["draining"]

    room.agent("new", "demo", fake=SLOW)
    assert draining.process.wait(60) == 0, draining.said()
    assert draining.process.stdout
    assert draining.process.stdout.read() == "agent-1\n"
    assert "old is empty: it can be updated or switched off" in draining.said()
    load.more(8)
    assert node(room, "old")["running"] == 0
    assert old.popen
    old.popen.send_signal(signal.SIGTERM)
    assert old.popen.wait(20) == 0
    load.more(8)
    answers = load.stop()
    assert all(answer.clean for answer in answers), [answer for answer in answers if not answer.clean]
    assert len({(answer.text, answer.finish) for answer in answers}) <= 4


def test_an_interrupted_drain_goes_on_until_it_is_ended(room: Room) -> None:
    room.coordinator()
    room.agent("one", "demo", fake=SLOW)
    room.ready()
    draining = Draining(room, "one")
    draining.says("it alone holds")
    draining.process.send_signal(signal.SIGINT)
    assert draining.process.wait(10) == 130
    assert "the drain of one goes on; `mlx-serving undrain one` ends it" in draining.said()

    def state() -> str:
        nodes = json.loads(run(room, "nodes", "ls", "--output", "json").stdout)["nodes"]
        return "draining" if next(entry for entry in nodes if entry["name"] == "one")["draining"] else "member"

    assert state() == "draining"
    assert ask(room.url, chat(DEMO, max_tokens=2)).status_code == 200, "nobody else could answer"
    assert run(room, "undrain", "one").stdout == "agent-1\n"
    assert state() == "member"
    trail = json.loads(run(room, "audit", "--output", "json").stdout)["entries"]
    assert [entry["action"] for entry in trail[-2:]] == ["drain node 1", "end the drain of node 1"]


def test_who_cannot_be_drained_is_told_why(room: Room) -> None:
    room.coordinator()
    unknown = run(room, "drain", "mini-07")
    assert unknown.returncode == 4 and "mlx-serving nodes ls" in unknown.stderr, unknown
    founder = run(room, "drain", "coordinator-1")
    assert founder.returncode == 8 and "runs no models" in founder.stderr, founder
