"""A room of real processes on loopback.

Owns starting, watching, killing and cleaning up coordinators and agents, each with a home folder of its own. Refuses to
look inside: all it knows is what a user sees (HTTP, the process list, the folders).
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("MLX_SERVING_BIN", ROOT / "target" / "debug" / "mlx-serving"))
DEMO = "mlx-serving-demo"
DEMO_FOLDER = ROOT / "python" / "demo_model" / "weights"
# A logit_bias that forbids the end of an answer, so that it runs to max_tokens.
ENDLESS = {str(token): -100 for token in json.loads((DEMO_FOLDER / "config.json").read_text())["eos_token_id"]}
FAKE_RUNTIME = f"{sys.executable} -m fake_runtime"
# Two cores are shared with everything else the machine does; a wait is a bound against hanging, never a measurement.
PATIENCE_S = 120.0


# Below those that systems give to whoever asks for any: a process that is started again finds its own free. Where tests
# run beside each other each run has a part of them, and gets no port that a process of another comes back to.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS_EACH = 22_000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS = itertools.count(random.SystemRandom().randrange(_PORTS_EACH))


def free_port() -> int:
    """A port that is free on TCP and UDP, and given to nobody else here before all others were."""
    while True:
        port = 10_000 + _WORKER * _PORTS_EACH + next(_PORTS) % _PORTS_EACH
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


T = TypeVar("T")


def until(what: str, look: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
    """Polls `look` until it gives something true; says what it waited for when it gives up."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up waiting: {what}")
        time.sleep(0.02)


@dataclass
class Process:
    """One of our programs with its log."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command, env=os.environ | self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        assert self.popen is not None, f"{self.name} was not started"
        return self.popen.pid

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        assert self.popen is not None
        return self.popen.wait(patience_s)

    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def rss_kib(self) -> int:
        command = ["/bin/ps", "-o", "rss=", "-p", str(self.pid)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Room:
    """One coordinator and its agents."""

    folder: Path
    api_port: int = field(default_factory=free_port)
    cluster_port: int = field(default_factory=free_port)
    processes: list[Process] = field(default_factory=list[Process])
    runtime_pids: set[int] = field(default_factory=set[int])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def coordinator(self, api_host: str = "127.0.0.1") -> Process:
        """Starts the coordinator and waits until it leads."""
        home = self.folder / "coordinator-home"
        arguments = ["--api", f"{api_host}:{self.api_port}", "--listen", f"127.0.0.1:{self.cluster_port}"]
        process = self._start("coordinator", ["coordinator", *arguments, "--home", str(home)], {})
        until("the coordinator leads", lambda: self.answers("/readyz") or self._check(process))
        return process

    def agent(
        self,
        name: str,
        *models: str,
        fake: str | None = None,
        more: list[str] | None = None,
        start: bool = True,
        coordinator: str | None = None,
        token: str | None = None,
    ) -> Process:
        """Starts an agent; `fake` = knobs of the fake runtime instead of real MLX."""
        token = token or self.join_token()
        coordinator = coordinator or f"127.0.0.1:{self.cluster_port}"
        arguments = ["agent", "--coordinator", coordinator, "--token", token, "--name", name]
        arguments += ["--home", str(self.folder / name), *(more or [])]
        for model in models:
            arguments += ["--model", model]
        environment = {"MLX_SERVING_PYTHON_ENV": sys.prefix}
        if fake is not None:
            path = os.pathsep.join([str(ROOT / "python"), str(ROOT / "tests")])
            environment |= {"MLX_SERVING_RUNTIME_PROGRAM": FAKE_RUNTIME, "FAKE_RUNTIME": fake, "PYTHONPATH": path}
        return self._start(name, arguments, environment, start)

    def join_token(self) -> str:
        """The token that the coordinator wrote; its API may answer a moment before it did."""
        file = self.folder / "coordinator-home" / "coordinator" / "join-token"
        until("the coordinator wrote its join token", file.exists)
        return file.read_text().strip()

    def up(self, *arguments: str, home: Path | None = None) -> Process:
        """`mlx-serving up` as a newcomer types it, on ports of its own."""
        ports = ["--port", str(self.api_port), "--cluster-port", str(self.cluster_port)]
        home = home or self.folder / "up-home"
        environment = {"MLX_SERVING_PYTHON_ENV": sys.prefix}
        return self._start("up", ["up", *ports, "--home", str(home), *arguments], environment)

    def ready(self, model: str = DEMO, nodes: int = 1) -> None:
        """Waits until `nodes` nodes could take a request for `model`."""

        def enough() -> bool:
            found = [entry for entry in self.status()["models"] if entry["model"] == model]
            return bool(found) and found[0]["nodes_ready"] >= nodes

        until(f"{nodes} node(s) ready with {model}", enough)
        self.runtime_pids |= {runtime["pid"] for runtime in self.runtimes()}

    def status(self) -> dict[str, Any]:
        try:
            response = httpx.get(f"{self.url}/api/v1/status", timeout=10)
        except httpx.TransportError:
            return {"models": [], "nodes": []}
        return response.json()

    def runtimes(self, node: str | None = None) -> list[dict[str, Any]]:
        """Every runtime the agents report, or those of one agent."""
        nodes = [entry for entry in self.status()["nodes"] if node in (None, entry["name"])]
        return [runtime for entry in nodes for runtime in entry["models"]]

    def runtime_pid(self, node: str) -> int:
        pid: int = until(
            f"a runtime on {node}", lambda: next((r["pid"] for r in self.runtimes(node) if r["pid"]), None)
        )
        self.runtime_pids.add(pid)
        return pid

    def answers(self, path: str) -> bool:
        try:
            return httpx.get(f"{self.url}{path}", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Ends everything; whatever an agent leaves behind is a failure of the test."""
        for process in self.processes:
            if process.alive():
                process.kill()
        orphans = [pid for pid in self.runtime_pids if pid and not gone_soon(pid)]
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        assert not orphans, f"runtimes outlived their agents: {orphans}"

    def _start(self, name: str, arguments: list[str], environment: dict[str, str], start: bool = True) -> Process:
        process = Process(name, [str(BINARY), *arguments], environment, self.folder / f"{name}.log")
        if start:
            process.start()
        self.processes.append(process)
        return process

    def _check(self, process: Process) -> bool:
        assert process.alive(), f"{process.name} ended:\n{process.said()}"
        return False


def alive(pid: int) -> bool:
    """Does the process exist, other than as a zombie?"""
    listed = subprocess.run(["/bin/ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(listed.stdout.strip()) and not listed.stdout.startswith("Z")


def gone_soon(pid: int) -> bool:
    """A killed agent's guard needs a moment to kill the runtime."""
    try:
        return until(f"process {pid} is gone", lambda: not alive(pid), 30)
    except AssertionError:
        return False
