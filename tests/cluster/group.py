"""A room with several coordinators.

Owns starting and finding them: who leads, who follows, and an agent that knows them all. Everything else is a room's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from cluster.harness import BINARY, Process, Room, free_port, until


@dataclass
class Coordinator:
    """One member of the group."""

    name: str
    api_port: int
    cluster_port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.cluster_port}"

    def status(self) -> dict[str, Any] | None:
        try:
            return httpx.get(f"{self.url}/api/v1/status", timeout=5).json()
        except (httpx.TransportError, ValueError):
            return None

    def leads(self) -> bool:
        status = self.status() if self.process.alive() else None
        return bool(status and status["coordinator"]["leader"])

    def is_ready(self, model: str, nodes: int) -> bool:
        """Could this gateway's clients be answered by so many nodes?"""
        status = self.status() if self.process.alive() else None
        found = [entry for entry in (status or {"models": []})["models"] if entry["model"] == model]
        return bool(found) and found[0]["nodes_ready"] >= nodes


@dataclass
class Group(Room):
    """Three coordinators and their agents, on loopback."""

    members: list[Coordinator] = field(default_factory=list[Coordinator])

    def found(self, count: int = 3) -> None:
        """The first founds the cluster, the others join it; returns when all of them have a vote."""
        for number in range(count):
            name = f"coordinator-{number + 1}"
            api_port, cluster_port = free_port(), free_port()
            arguments = ["coordinator", "--api", f"127.0.0.1:{api_port}", "--listen", f"127.0.0.1:{cluster_port}"]
            arguments += ["--home", str(self.folder / name)]
            if self.members:
                arguments += ["--join", self.members[0].address, "--token", self.token("coordinator")]
            process = Process(name, [str(BINARY), *arguments], {}, self.folder / f"{name}.log")
            process.start()
            self.processes.append(process)
            member = Coordinator(name, api_port, cluster_port, process)
            self.members.append(member)
            if number == 0:
                until("the founder leads", partial(self._leads, member))
        # A newcomer alone follows; the second makes voters of both.
        for member in self.members:
            until(f"{member.name} serves", partial(self._serves, member))
        self.api_port = self.members[0].api_port

    def _leads(self, member: Coordinator) -> bool:
        return member.leads() or self._check(member.process)

    def _serves(self, member: Coordinator) -> bool:
        return member.status() is not None or self._check(member.process)

    def token(self, role: str = "agent") -> str:
        file = "join-token" if role == "agent" else f"{role}-join-token"
        return (self.folder / "coordinator-1" / "coordinator" / file).read_text().strip()

    def worker(self, name: str, *models: str, fake: str) -> Process:
        """An agent with the fake runtime that knows all coordinators."""
        addresses = ",".join(member.address for member in self.members)
        return self.agent(name, *models, fake=fake, coordinator=addresses, token=self.token())

    def leader(self) -> Coordinator:
        return until("somebody leads", lambda: next((member for member in self.members if member.leads()), None))

    def followers(self) -> list[Coordinator]:
        leader = self.leader()
        return [member for member in self.members if member is not leader and member.process.alive()]

    def all_ready(self, model: str, nodes: int) -> None:
        """Waits until every gateway that lives could have a request answered by so many nodes."""
        for member in self.members:
            if member.process.alive():
                until(f"{member.name} sees {nodes} node(s)", partial(member.is_ready, model, nodes))
        self.runtime_pids |= {runtime["pid"] for runtime in self.runtimes()}
