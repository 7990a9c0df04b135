"""The coordinator's disk fills up, whoever filled it: nothing new is written down, everything else goes on, and when
there is room again so does the rest, without a restart."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cluster.client import TIMEOUT_S, chat
from cluster.cuts import BY_NAME, CHAT, Asked, CutRoom, assert_right
from cluster.harness import DEMO, ENDLESS, until

PACE = "t1_s=0.05"
# An answer outlives the filling of a disk.
SLOW = "t1_s=0.2"
DISK_MIB = 160

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="a disk of its own needs root on Linux"
)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[CutRoom]:
    home = tmp_path / "coordinator-home"
    home.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "mlxs-test", str(home))
    made = CutRoom(tmp_path)
    try:
        yield made
    finally:
        made.close()
        run("umount", "--lazy", str(home))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def fill(room: CutRoom) -> Path:
    """To the last byte."""
    file = room.folder / "coordinator-home" / "filling"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as writing:
        while writing.write(bytes(1 << 16)):
            pass
    return file


def trouble(room: CutRoom) -> str:
    return room.status().get("coordinator", {}).get("trouble") or ""


def is_full(room: CutRoom) -> bool:
    return "storage_full" in trouble(room)


def test_a_full_disk_stops_nothing_but_what_would_be_written_down(room: CutRoom) -> None:
    agents = room.fill(1, SLOW)
    coordinator = room.processes[0]
    until("the reserve is there", (room.folder / "coordinator-home/coordinator/registry/ballast").exists)
    asked = Asked(BY_NAME["plain"], CHAT)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(room.ask, asked)
        filling = fill(room)
        until("the coordinator sees that its disk is full", lambda: is_full(room))
        assert not running.done(), "it goes on while the disk is full"
        assert_right(asked, running.result())
    newcomer = room.agent("newcomer", "demo", fake=PACE)
    until("the newcomer is told why", lambda: "storage_full" in newcomer.said())
    agents[0].kill()
    agents[0].start()
    room.ready()
    assert_right(asked, room.ask(asked))

    filling.unlink()
    until("there is room again", lambda: not is_full(room))
    newcomer.kill()
    newcomer.start()
    room.ready(nodes=2)
    assert coordinator.alive()


def test_a_coordinator_starts_on_a_full_disk_and_serves(room: CutRoom) -> None:
    room.fill(1, PACE)
    coordinator = room.processes[0]
    until("the reserve is there", (room.folder / "coordinator-home/coordinator/registry/ballast").exists)
    fill(room)
    coordinator.kill()
    coordinator.start()
    room.ready()
    until("the coordinator sees that its disk is full", lambda: is_full(room))
    asked = Asked(BY_NAME["plain"], CHAT)
    assert_right(asked, room.ask(asked))


def test_a_key_is_revoked_on_a_full_disk_though_none_is_made(room: CutRoom) -> None:
    room.coordinator()
    home = room.folder / "coordinator-home" / "coordinator"
    until("the reserve is there", (home / "registry" / "ballast").exists)
    headers = {"x-api-key": (home / "admin-key").read_text().strip()}
    with httpx.Client(base_url=f"{room.url}/api/v1/admin", headers=headers, timeout=30) as administrator:
        made = administrator.post("/keys", json={"name": "leaked"}).json()
        fill(room)
        until("no key is made", lambda: administrator.post("/keys", json={"name": "new"}).status_code == 507)
        refused = administrator.post("/keys", json={"name": "new"}).json()
        assert refused["error"]["code"] == "storage_full", refused
        assert administrator.delete(f"/keys/{made['key']['id']}").status_code == 200
    assert httpx.get(f"{room.url}/v1/models", headers={"x-api-key": made["secret"]}).status_code == 401


def test_on_a_full_disk_nothing_is_begun_that_could_not_be_kept_and_what_runs_is_answered(room: CutRoom) -> None:
    room.fill(1, PACE)
    until("the reserve is there", (room.folder / "coordinator-home/coordinator/registry/ballast").exists)
    url, body = f"{room.url}/v1/chat/completions", chat(DEMO, max_tokens=40, logit_bias=ENDLESS, stream=True)

    def ask(key: str) -> httpx.Response:
        return httpx.post(url, json=body, headers={"idempotency-key": key}, timeout=TIMEOUT_S)

    given, filling = b"", room.folder / "coordinator-home" / "filling"
    with httpx.stream("POST", url, json=body, headers={"idempotency-key": "runs"}, timeout=TIMEOUT_S) as running:
        for piece in running.iter_raw():
            if not given:
                fill(room)
                until("the coordinator sees that its disk is full", lambda: is_full(room))
            given += piece
    assert given.endswith(b"data: [DONE]\n\n")
    gone, refused = ask("runs"), ask("new")
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "idempotency_answer_gone")
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")
    filling.unlink()
    until("there is room again", lambda: not is_full(room))
    first, again = ask("new"), ask("new")
    assert first.status_code == 200 and again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
