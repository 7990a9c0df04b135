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

import pytest

from cluster.cuts import BY_NAME, CHAT, Asked, CutRoom, assert_right
from cluster.harness import until

PACE = "t1_s=0.05"
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
    agents = room.fill(1, PACE)
    coordinator = room.processes[0]
    until("the reserve is there", (room.folder / "coordinator-home/coordinator/registry/ballast").exists)
    asked = Asked(BY_NAME["plain"], CHAT)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(room.ask, asked)
        filling = fill(room)
        until("the coordinator sees that its disk is full", lambda: is_full(room))
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
