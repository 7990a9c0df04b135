"""A hostile chat template harms its own model's requests, and neither the coordinator nor anybody else's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cluster.client import ask, chat
from cluster.group import Group
from cluster.harness import BINARY, DEMO, DEMO_FOLDER, Room, gone_soon, until

# Lists that share their parts: twenty bytes more are work for a century, or fill any memory.
DOUBLED = "{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
SHARED = "{% set ns = namespace(x=[1], y=[1]) %}" + DOUBLED
HOSTILE = SHARED + "{% if messages[0].content == 'fill' %}{{ ns.x ~ '' }}{% else %}{{ ns.x == ns.y }}{% endif %}"
# A tenth of what such a template fills.
GROWTH_KIB_MAX = 150_000


def renderers(coordinator: int) -> list[int]:
    listed = subprocess.run(["/bin/ps", "-axww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [
        int(pid) for pid, parent, args in lines if int(parent) == coordinator and args.endswith(" render-templates")
    ]


def busy(pid: int) -> bool:
    """Does one of its threads run at this moment?"""
    threads = ["-L"] if sys.platform == "linux" else []
    command = ["/bin/ps", *threads, "-o", "stat=", "-p", str(pid)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return any(line.startswith("R") for line in listed.stdout.splitlines())


@pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="only Linux keeps the file of a running program")
def test_a_program_whose_file_was_replaced_still_renders(tmp_path: Path) -> None:
    program = tmp_path / "mlx-serving"
    shutil.copy(BINARY, program)
    group = Group(tmp_path)
    try:
        group.found(1, programs={0: str(program)})
        group.worker("one", "demo", fake="t1_s=0.005")
        group.all_ready(DEMO, 1)
        program.unlink()
        program.write_text("#!/bin/false\n")
        program.chmod(0o755)
        coordinator = group.members[0]
        for pid in renderers(coordinator.process.pid):
            os.kill(pid, signal.SIGKILL)
        assert ask(coordinator.url, chat(DEMO, max_tokens=2)).status_code == 200
        assert renderers(coordinator.process.pid)
    finally:
        group.close()


def test_a_hostile_template_costs_only_its_own_requests_and_leaves_no_process_behind(room: Room) -> None:
    hostile = room.folder / "hostile"
    shutil.copytree(DEMO_FOLDER, hostile)
    (hostile / "chat_template.jinja").write_text(HOSTILE)
    coordinator = room.coordinator()
    room.agent("one", "demo", str(hostile), fake="t1_s=0.005")
    room.ready()
    room.ready(hostile.name)
    assert ask(room.url, chat(DEMO, max_tokens=2)).status_code == 200
    before = coordinator.rss_kib()

    def served_meanwhile(hostile_ones_ended: threading.Event) -> int:
        answers = 0
        while not hostile_ones_ended.is_set():
            assert ask(room.url, chat(DEMO, max_tokens=2)).status_code == 200
            answers += 1
        return answers

    with ThreadPoolExecutor() as pool:
        ended = threading.Event()
        asked = [pool.submit(ask, room.url, chat(hostile.name, how)) for how in ("compare", "fill")]
        others = pool.submit(served_meanwhile, ended)
        try:
            refusals = [refusal.result() for refusal in asked]
        finally:
            ended.set()
        answers = others.result()
    told = [(refusal.status_code, refusal.json()["error"]["code"]) for refusal in refusals]
    assert told == [(400, "invalid_messages")] * 2, [refusal.text for refusal in refusals]
    assert answers > 3, "others waited"
    assert coordinator.rss_kib() - before < GROWTH_KIB_MAX

    known = renderers(coordinator.pid)
    with ThreadPoolExecutor() as pool:
        broken = pool.submit(ask, room.url, chat(hostile.name, "compare"))
        # The hostile question is in the one that worked last or in a new one; either must not outlive whom it answers.
        until("it is asked", lambda: any(busy(pid) for pid in renderers(coordinator.pid)))
        known += renderers(coordinator.pid)
        coordinator.kill()
        assert isinstance(broken.exception(), httpx.TransportError)
    assert known and all(gone_soon(pid) for pid in known), "a renderer outlived its coordinator"
