"""The room that chaos happens in: one coordinator, agents behind links of the fault proxy, fake runtimes with knobs.

Owns what a fault needs a grip on: every process by name, each agent's link, runtime and knobs, the coordinator's disk;
and the part of the operating system that starts again what has died. Refuses to decide what goes wrong, and when.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from cluster.fault_proxy import FaultProxy, Link
from cluster.harness import DEMO, ROOT, Process, Room, until
from cluster.reference import UNHEARD

# Ids that no question of the witness holds. A prompt with the one kills the runtime it runs on; on a prompt with the
# other the model call raises.
FAULTY, POISON = UNHEARD[-2:]
KNOBS = f"t1_s=0.02,beta=0.02,prefill_tps=4000,crash_token={POISON},fail_token={FAULTY}"
_DISK = "256m"
_DISK_OF = "mlxs-chaos-"
GUEST = "guest"


class ChaosRoom(Room):
    """Started whole by the constructor."""

    def __init__(self, folder: Path, agents: int, seed: int) -> None:
        super().__init__(folder)
        self.proxy = FaultProxy(seed)
        self.links: dict[str, Link] = {}
        self.agents: dict[str, Process] = {}
        self.ended_by_itself: list[str] = []
        self.home = folder / "coordinator-home"
        self.has_own_disk = _mounted(self.home)
        self.keeper = self.coordinator()
        for number in range(1, agents + 1):
            self.add(f"mac-{number}")
        self.ready(nodes=agents)

    def add(self, name: str) -> Process:
        """An agent that knows the coordinator by the address of its link only."""
        number = len(self.links) + 2
        if name not in self.links:
            listen = (f"127.0.0.{number}", self.cluster_port)
            self.links[name] = self.proxy.link(listen, ("127.0.0.1", self.cluster_port))
        process = self.agent(name, "demo", fake="", start=False)
        at = process.command.index("--coordinator") + 1
        process.command[at] = "{}:{}".format(*self.links[name].address)
        process.environment["MLX_SERVING_RUNTIME_PROGRAM"] = str(self._launcher(name))
        self.agents[name] = process
        process.start()
        return process

    def numbers(self) -> dict[str, str]:
        """Names of connected agents by their numbers."""
        return {str(node["node"]): node["name"] for node in self.status()["nodes"] if node["connected"]}

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
        return [self.keeper, *self.agents.values()]

    def revive(self) -> None:
        """Starts what is not there, as the operating system does with a service."""
        for process in self.everybody():
            if not process.alive():
                process.start()

    def notice(self, during: str) -> None:
        """Remembers who ended though nobody killed it."""
        for process in self.everybody():
            status = process.popen.poll() if process.popen else None
            if status not in {None, 0, -signal.SIGKILL}:
                self.ended_by_itself.append(f"{process.name} with status {status} during {during}")

    def restart_what_is_beyond_help(self, after: str) -> None:
        """A coordinator that says it has stopped for good is ended; the operating system starts it again."""
        trouble = self.status().get("coordinator", {}).get("trouble")
        if trouble and not trouble.startswith("storage_full"):
            self.ended_by_itself.append(f"coordinator, ended because it said `{trouble}`, after {after}")
            gone(self.keeper)

    def in_full_service(self) -> bool:
        """Every agent is connected and its model ready."""
        status = self.status()
        connected = {node["name"] for node in status["nodes"] if node["connected"]}
        ready = sum(model["nodes_ready"] for model in status["models"] if model["model"] == DEMO)
        return connected >= set(self.agents) and ready >= len(self.agents)

    def at_rest(self) -> bool:
        """Nothing waits and nothing runs, by the coordinator's count and by the runtimes' own."""
        status = self.status()
        busy = [entry["waiting"] + entry["running"] for entry in status["models"]]
        busy += [node["running"] for node in status["nodes"] if node["connected"]]
        busy += [runtime["running"] for node in status["nodes"] if node["connected"] for runtime in node["models"]]
        return bool(status["nodes"]) and not any(busy)

    def close(self) -> None:
        for agent in self.agents:
            self.runtimes_of(agent)
        for process in self.processes:
            if process.alive():
                send(process.pid, signal.SIGCONT)
        try:
            super().close()
        finally:
            self.proxy.close()
            if self.has_own_disk:
                _run("umount", "--lazy", str(self.home))

    def _launcher(self, name: str) -> Path:
        """A runtime program that reads its knobs when it starts."""
        self.turn(name)
        program = self.folder / f"{name}.sh"
        line = f'FAKE_RUNTIME=$(cat "{self._knobs(name)}") exec "{sys.executable}" -m fake_runtime "$@"'
        path = os.pathsep.join([str(ROOT / "python"), str(ROOT / "tests")])
        program.write_text(f'#!/bin/sh\nexport PYTHONPATH="{path}"\n{line}\n')
        program.chmod(0o700)
        return program

    def _knobs(self, agent: str) -> Path:
        return self.folder / f"{agent}.knobs"


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
