"""A room with several coordinators.

Owns starting and finding them: who leads, who follows, and an agent that knows them all. Everything else is a room's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from cluster.harness import BINARY, Process, Room, free_port, until
from cluster.wiring import Wiring


@dataclass
class Coordinator:
    """One member of the group."""

    name: str
    api_port: int
    cluster_port: int
    process: Process
    # What it is called to others: a name of the wiring, where there is one.
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.cluster_port}"

    def status(self) -> dict[str, Any] | None:
        try:
            return httpx.get(f"{self.url}/api/v1/status", timeout=5).json()
        except (httpx.TransportError, ValueError):
            return None

    def leads(self) -> bool:
        status = self.status() if self.process.alive() else None
        return bool(status and status["coordinator"]["leader"])

    def knows_who_leads(self) -> bool:
        """Does it know who leads?"""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def is_ready(self, model: str, nodes: int) -> bool:
        """Could this gateway's clients be answered by so many nodes?"""
        status = self.status() if self.process.alive() else None
        found = [entry for entry in (status or {"models": []})["models"] if entry["model"] == model]
        return bool(found) and found[0]["nodes_ready"] >= nodes


@dataclass
class Group(Room):
    """Three coordinators and their agents, on loopback."""

    members: list[Coordinator] = field(default_factory=list[Coordinator])
    # With it they reach one another, and agents reach them, by ways that can be spoiled.
    wiring: Wiring | None = None

    def found(
        self, count: int = 3, programs: dict[int, str] | None = None, more: dict[int, list[str]] | None = None
    ) -> None:
        """The first founds the cluster, the others join it; returns when all of them serve.

        `programs` and `more`: what single members run instead of the binary, and with which further options.
        """
        # All ports first: a wired process knows the names of all.
        self.members = [self._member(f"coordinator-{number + 1}") for number in range(count)]
        for number, member in enumerate(self.members):
            arguments = ["coordinator", "--api", f"127.0.0.1:{member.api_port}"]
            arguments += ["--listen", f"127.0.0.1:{member.cluster_port}", "--advertise", member.address]
            arguments += ["--home", str(self.folder / member.name)]
            if member is not self.members[0]:
                others = [other.address for other in self.members if other is not member]
                arguments += [*(word for other in others for word in ("--join", other))]
                arguments += ["--token", self.token("coordinator")]
            arguments += (more or {}).get(number, [])
            program = (programs or {}).get(number, str(BINARY))
            member.process.command = self.wired(member.name, [program, *arguments])
            member.process.start()
            self.processes.append(member.process)
            if member is self.members[0]:
                until("the founder leads", partial(self._leads, member))
        # A newcomer alone follows; the second makes voters of both.
        for member in self.members:
            until(f"{member.name} serves", partial(self._serves, member))
        self.api_port = self.members[0].api_port

    def newcomer(self, name: str, contact: str, token: str) -> Coordinator:
        """One more coordinator, which `contact` lets in; returns when it serves."""
        member = self._member(name)
        arguments = ["coordinator", "--api", f"127.0.0.1:{member.api_port}", "--home", str(self.folder / name)]
        arguments += ["--listen", f"127.0.0.1:{member.cluster_port}", "--advertise", member.address]
        member.process.command = self.wired(name, [str(BINARY), *arguments, "--join", contact, "--token", token])
        member.process.start()
        self.members.append(member)
        self.processes.append(member.process)
        until(f"{name} serves", partial(self._serves, member))
        return member

    def _member(self, name: str) -> Coordinator:
        member = Coordinator(name, free_port(), free_port(), Process(name, [], {}, self.folder / f"{name}.log"))
        if self.wiring:
            self.wiring.listens(name, member.cluster_port)
            member.host = name
        return member

    def wired(self, who: str, command: list[str]) -> list[str]:
        """The command as run with ways of its own, where there are such."""
        return self.wiring.command(who, command) if self.wiring else command

    def _leads(self, member: Coordinator) -> bool:
        return member.leads() or self._check(member.process)

    def _serves(self, member: Coordinator) -> bool:
        return member.status() is not None or self._check(member.process)

    def token(self, role: str = "agent") -> str:
        file = "join-token" if role == "agent" else f"{role}-join-token"
        path = self.folder / "coordinator-1" / "coordinator" / file
        until(f"{path.name} is written", path.exists)
        return path.read_text().strip()

    def worker(self, name: str, *models: str, fake: str) -> Process:
        """An agent with the fake runtime that knows all coordinators."""
        process = self.prepared(name, *models, fake=fake)
        process.start()
        return process

    def prepared(self, name: str, *models: str, fake: str) -> Process:
        """The same, not started yet."""
        addresses = ",".join(member.address for member in self.members)
        token = self.token()
        process = self.agent(name, *models, fake=fake, start=False, coordinator=addresses, token=token)
        process.command = self.wired(name, process.command)
        return process

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
