"""The room that chaos happens in: coordinators, agents behind links of the fault proxy, fake runtimes with knobs.

Owns what a fault needs a grip on: every process by name, each way from one to another, runtimes and their knobs, the
disks of coordinators; and the part of the operating system that starts again what has died. Refuses to decide what
goes wrong, and when.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.fault_proxy import Link
from cluster.group import Coordinator, Group
from cluster.harness import DEMO, ROOT, Process, until
from cluster.reference import UNHEARD
from cluster.wiring import Wiring

# Ids that no question of the witness holds. A prompt with the one kills the runtime it runs on; on a prompt with the
# other the model call raises.
FAULTY, POISON = UNHEARD[-2:]
KNOBS = f"t1_s=0.02,beta=0.02,prefill_tps=4000,crash_token={POISON},fail_token={FAULTY}"
_DISK = "256m"
_DISK_OF = "mlxs-chaos-"
GUEST = "guest"


class ChaosRoom(Group):
    """Started whole by the constructor."""

    def __init__(self, folder: Path, agents: int, seed: int, coordinators: int = 1) -> None:
        self.ways = Wiring(folder, seed)
        super().__init__(folder, wiring=self.ways)
        self.agents: dict[str, Process] = {}
        self.ended_by_itself: list[str] = []
        homes = [folder / f"coordinator-{number + 1}" for number in range(coordinators)]
        self._disks = [home for home in homes if _mounted(home)]
        self.found(coordinators)
        for number in range(1, agents + 1):
            self.add(f"mac-{number}")
        self.all_ready(DEMO, agents)

    def add(self, name: str) -> Process:
        """An agent that reaches coordinators by its own links only."""
        process = self.prepared(name, "demo", fake="")
        process.environment["MLX_SERVING_RUNTIME_PROGRAM"] = str(self._launcher(name))
        self.agents[name] = process
        process.start()
        return process

    def links(self, agent: str) -> list[Link]:
        """Its cable: the ways to all coordinators."""
        return self.ways.of(agent)

    def home(self, keeper: Coordinator) -> Path:
        return self.folder / keeper.name

    def has_own_disk(self, keeper: Coordinator) -> bool:
        return self.home(keeper) in self._disks

    def but(self, keeper: Coordinator) -> list[str]:
        """The other coordinators."""
        return [member.name for member in self.members if member is not keeper]

    def gateways(self) -> dict[str, str]:
        return {member.name: member.url for member in self.members}

    def numbers(self) -> dict[str, str]:
        """Names of connected agents by their numbers."""
        return {str(node["node"]): node["name"] for node in self.status()["nodes"] if node["connected"]}

    def struck(self, agent: str) -> Path:
        """A file that is there once a fault of its runtime has come about."""
        return self.folder / f"{agent}.struck"

    def turn(self, agent: str, knobs: str = "") -> None:
        """Other knobs for the agent's next runtime; none are the ordinary ones."""
        self._knobs(agent).write_text(",".join(filter(None, [KNOBS, knobs])))

    def runtimes_of(self, agent: str) -> list[int]:
        """The processes themselves, whatever the coordinator knows of them."""
        process = self.agents[agent]
        found = [pid for pid in _below(process.pid) if _is_runtime(pid)] if process.alive() else []
        self.runtime_pids |= set(found)
        return found

    def signal_runtimes(self, agent: str, number: signal.Signals) -> None:
        for pid in self.runtimes_of(agent):
            send(pid, number)

    def everybody(self) -> list[Process]:
        return [*(member.process for member in self.members), *self.agents.values()]

    def revive(self) -> None:
        """Starts what is not there, as the operating system does with a service."""
        for process in self.everybody():
            if not process.alive():
                process.start()

    def notice(self, during: str) -> list[str]:
        """Remembers who ended though nobody killed it."""
        found: list[str] = []
        for process in self.everybody():
            status = process.popen.poll() if process.popen else None
            if status not in {None, 0, -signal.SIGKILL}:
                found.append(f"{process.name} with status {status} during {during}")
        self.ended_by_itself += found
        return found

    def restart_what_is_beyond_help(self, after: str) -> list[str]:
        """A coordinator that says it has stopped for good is ended; the operating system starts it again."""
        found: list[str] = []
        for member in self.members:
            trouble = (member.status() or {}).get("coordinator", {}).get("trouble")
            if trouble and not trouble.startswith("storage_full"):
                found.append(f"{member.name}, ended because it said `{trouble}`, after {after}")
                gone(member.process)
        self.ended_by_itself += found
        return found

    def in_full_service(self) -> bool:
        """One leads, and every gateway has every agent connected and its model ready."""
        statuses = [member.status() for member in self.members]
        leaders = sum(bool(status and status["coordinator"]["leader"]) for status in statuses)
        return leaders == 1 and all(status and self._is_complete(status) for status in statuses)

    def _is_complete(self, status: dict[str, Any]) -> bool:
        connected = {node["name"] for node in status["nodes"] if node["connected"]}
        ready = sum(model["nodes_ready"] for model in status["models"] if model["model"] == DEMO)
        return connected >= set(self.agents) and ready >= len(self.agents)

    def at_rest(self) -> bool:
        """Nothing waits and nothing runs, by the coordinators' count and by the runtimes' own."""
        return all(_at_rest(member.status()) for member in self.members)

    def agreed(self) -> bool:
        """All coordinators are of one cluster, in one term, and have applied the same facts."""
        statuses = [member.status() for member in self.members]
        told = {_facts(status) for status in statuses if status}
        return None not in statuses and len(told) == 1

    def told(self) -> str:
        """What each coordinator says of itself, for whoever looks why the others wait."""
        return "; ".join(f"{member.name}: {(member.status() or {}).get('coordinator')}" for member in self.members)

    def close(self) -> None:
        for agent in self.agents:
            self.runtimes_of(agent)
        for process in self.processes:
            if process.alive():
                send(process.pid, signal.SIGCONT)
        try:
            super().close()
        finally:
            self.ways.close()
            for disk in self._disks:
                _run("umount", "--lazy", str(disk))

    def _launcher(self, name: str) -> Path:
        """A runtime program that reads its knobs when it starts."""
        self.turn(name)
        program = self.folder / f"{name}.sh"
        line = f'FAKE_RUNTIME=$(cat "{self._knobs(name)}") exec "{sys.executable}" -m fake_runtime "$@"'
        path = os.pathsep.join([str(ROOT / "python"), str(ROOT / "tests")])
        told = f'export PYTHONPATH="{path}" FAKE_STRUCK="{self.struck(name)}"'
        program.write_text(f"#!/bin/sh\n{told}\n{line}\n")
        program.chmod(0o700)
        return program

    def _knobs(self, agent: str) -> Path:
        return self.folder / f"{agent}.knobs"


def _facts(status: dict[str, Any]) -> tuple[Any, ...]:
    keeper = status["coordinator"]
    nodes = sorted((node["node"], node["name"], node["reserved_bytes"]) for node in status["nodes"])
    return status["cluster"], keeper["term"], keeper["applied_index"], keeper["trouble"], tuple(nodes)


def _at_rest(status: dict[str, Any] | None) -> bool:
    if not status:
        return False
    connected = [node for node in status["nodes"] if node["connected"]]
    busy = [entry["waiting"] + entry["running"] for entry in status["models"]]
    busy += [node["running"] for node in connected]
    busy += [runtime["running"] for node in connected for runtime in node["models"]]
    return bool(status["nodes"]) and not any(busy)


def gone(process: Process) -> None:
    """kill -9, whether it runs, is stopped or is dead already."""
    if process.alive():
        process.kill()


def ended(process: Process) -> None:
    """SIGTERM and patience: the drain of a well-behaved restart."""
    if process.alive():
        process.send(signal.SIGTERM)
        until(f"{process.name} has drained", lambda: not process.alive())


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_runtime(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"fake_runtime" in words and b"python" in words[0]


def _below(pid: int) -> list[int]:
    """All processes that descend from one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
            parents.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _mounted(home: Path) -> bool:
    """A small disk of its own, where root may have one."""
    home.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, where, *_ = line.split()
        maker = source.removeprefix(_DISK_OF)
        if source.startswith(_DISK_OF) and not Path(f"/proc/{maker}").exists():
            # Whoever made it has crashed.
            _run("umount", "--lazy", where)
    return _run("mount", "-t", "tmpfs", "-o", f"size={_DISK}", f"{_DISK_OF}{os.getpid()}", str(home)) == 0


def _run(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode
