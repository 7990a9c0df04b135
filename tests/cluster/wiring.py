"""Every way from one process of a room to a coordinator, each through a link of its own.

Owns names: a coordinator has one name for everybody, and where that leads differs from process to process, by a hosts
file in a mount namespace of its own. So a way that a process learns later is the same spoiled way, and a fault can be
at one pair of processes, in one direction. Refuses to know what runs there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cluster.fault_proxy import FaultProxy, Link
from cluster.faults import Direction, Wire

_BOUND = 'mount --bind "$0" /etc/hosts && exec "$@"'


def missing() -> str:
    """Why there can be no wiring here; empty if there can."""
    if shutil.which("unshare") is None:
        return "names of one's own need mount namespaces (Linux, util-linux)"
    tried = subprocess.run([*_unshared(), "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


def _unshared() -> list[str]:
    # Where this is not root, it is root of a user namespace, which may mount as well.
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *mapped]


class Wiring:
    """The proxy and its links; the names of those who listen come first, then whoever dials."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.proxy = FaultProxy(seed)
        self._folder = folder
        self._ports: dict[str, int] = {}
        self._dialling: list[str] = []
        self._links: dict[tuple[str, str], Link] = {}

    def listens(self, name: str, port: int) -> None:
        """A coordinator on loopback."""
        self._ports[name] = port

    def command(self, who: str, program: list[str]) -> list[str]:
        """The program as run with ways of its own; its pid is the program's own."""
        lines = ["127.0.0.1 localhost"]
        if who not in self._dialling:
            self._dialling.append(who)
        for at, (name, port) in enumerate(self._ports.items()):
            if name == who:
                continue
            if (who, name) not in self._links:
                listen = (f"127.0.{self._dialling.index(who) + 1}.{at + 2}", port)
                self._links[who, name] = self.proxy.link(listen, ("127.0.0.1", port))
            lines.append(f"{self._links[who, name].address[0]} {name}")
        hosts = self._folder / f"{who}.hosts"
        hosts.write_text("\n".join(lines) + "\n")
        return [*_unshared(), "sh", "-c", _BOUND, str(hosts), *program]

    def between(self, one: str, other: str) -> list[Link]:
        """Whoever of the two dials; coordinators dial one another."""
        return [link for pair, link in self._links.items() if set(pair) == {one, other}]

    def of(self, who: str) -> list[Link]:
        """Those that it dials."""
        return [link for (dialling, _), link in self._links.items() if dialling == who]

    def set(self, one: str, other: str, wire: Wire | None = None, **faults: float) -> None:
        """Both ways between two of them."""
        for link in self.between(one, other):
            link.set(None, wire, **faults)

    def send(self, sender: str, receiver: str, wire: Wire | None = None, **faults: float) -> None:
        """What the one sends to the other, whoever dialled; the other direction stays."""
        for (dialling, listening), link in self._links.items():
            if (dialling, listening) == (sender, receiver):
                link.set(Direction.UP, wire, **faults)
            if (dialling, listening) == (receiver, sender):
                link.set(Direction.DOWN, wire, **faults)

    def partition(self, one: str, others: Iterable[str]) -> None:
        """Silence between it and each of the others."""
        for other in others:
            self.set(one, other, blocked=True)

    def heal(self, who: str, others: Iterable[str]) -> None:
        """Takes back whatever is between it and the others."""
        for other in others:
            self.set(who, other)

    def counts(self) -> Counter[str]:
        """What all links did so far."""
        total: Counter[str] = Counter()
        for link in self._links.values():
            total += link.counts()
        return total

    def close(self) -> None:
        self.proxy.close()
