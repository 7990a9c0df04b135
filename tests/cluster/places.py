"""Hosts as network namespaces: each place has an address, a name and a cable of its own, all plugged into one switch.

Owns namespaces, cables, partitions between places, and clearing away what a crashed test left behind: names carry the
pid of the process that made them, and whoever starts next removes those of the dead. The switch is a bridge in a
namespace of its own, so that nothing of the machine's own network is touched. Refuses addresses from outside: there is
no way out.

A partition between two places is silent, as a pulled cable elsewhere in the building is: the sender's neighbour entry
leads to an address that nobody has. It works for one direction and for single pairs, and needs no packet filter.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

PREFIX = "mlxs"
_NOBODY = "02:00:00:00:00:01"
_NETNS = Path("/var/run/netns")
_ETC = Path("/etc/netns")
_CLONE_NEWNET = 0x4000_0000


def missing() -> str:
    """Why there can be no places here; empty if there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    if absent := [tool for tool in ("ip", "tc", "unshare") if shutil.which(tool) is None]:
        return f"network namespaces need {', '.join(absent)} (Linux, iproute2 and util-linux)"
    try:
        _run("ip", "netns", "add", f"{PREFIX}-{os.getpid()}-try")
        _run("ip", "netns", "del", f"{PREFIX}-{os.getpid()}-try")
    except OSError as error:
        return f"network namespaces are not allowed here: {error}"
    return ""


class Place:
    """One host. Programs that run in it see its name, its loopback and its cable."""

    def __init__(self, name: str, namespace: str, number: int) -> None:
        self.name, self.namespace = name, namespace
        self.address = f"10.77.0.{number}"
        # The switch must not learn addresses from frames that a partition leads astray: they are fixed.
        self.hardware = f"02:77:00:00:00:{number:02x}"

    def command(self, *program: str) -> list[str]:
        """The program as run here, under this host's name; its pid is the program's own."""
        hostname = 'hostname "$0" && exec "$@"'
        return [*_inside(self.namespace), "unshare", "--uts", "sh", "-c", hostname, self.name, *program]

    @contextlib.contextmanager
    def inside(self) -> Generator[None]:
        """Sockets that this thread makes in the block belong to this place."""
        with Path("/proc/thread-self/ns/net").open() as before, (_NETNS / self.namespace).open() as here:
            _enter(here.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def pids(self) -> list[int]:
        listed = _run("ip", "netns", "pids", self.namespace)
        return [int(pid) for pid in listed.split()]

    def run(self, *program: str) -> str:
        """A program's output; it must succeed."""
        return _run(*_inside(self.namespace), *program)


class Places:
    """Several hosts and the switch between them."""

    def __init__(self, *names: str) -> None:
        remove_leftovers()
        self._stem = f"{PREFIX}-{os.getpid()}"
        self._switch = f"{self._stem}-switch"
        self.places: dict[str, Place] = {}
        try:
            _run("ip", "netns", "add", self._switch)
            self._in_switch("ip", "link", "add", "bridge0", "type", "bridge", "stp_state", "0")
            self._in_switch("ip", "link", "set", "bridge0", "up")
            for name in names:
                self.add(name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Place:
        return self.places[name]

    def add(self, name: str) -> Place:
        """A new host, known by name to all others."""
        number = len(self.places) + 1
        place = Place(name, f"{self._stem}-{name}", number)
        _run("ip", "netns", "add", place.namespace)
        self.places[name] = place
        port = f"port{number}"
        cable = ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0"]
        self._in_switch(*cable, "address", place.hardware, "netns", place.namespace)
        self._in_switch("ip", "link", "set", port, "master", "bridge0", "up")
        place.run("ip", "link", "set", "lo", "up")
        place.run("ip", "addr", "add", f"{place.address}/24", "dev", "eth0")
        place.run("ip", "link", "set", "eth0", "up")
        self._write_hosts()
        return place

    def cut(self, sender: str, receiver: str) -> None:
        """Nothing that `sender` sends reaches `receiver` any more; the other direction stays."""
        self._neighbour(sender, receiver, _NOBODY)

    def join(self, sender: str, receiver: str) -> None:
        """Takes back `cut`."""
        self._neighbour(sender, receiver, self[receiver].hardware)

    def partition(self, *sides: set[str]) -> None:
        """Silence between the sides, both ways; whoever is on no side reaches everybody."""
        for side in sides:
            for other in sides:
                for sender in side if side is not other else ():
                    for receiver in other:
                        self.cut(sender, receiver)

    def heal(self) -> None:
        """Every cable as at the beginning."""
        for sender, place in self.places.items():
            for receiver in self.places:
                if sender != receiver:
                    self.join(sender, receiver)
            place.run("ip", "route", "flush", "type", "blackhole")
            if "tbf" in place.run("tc", "qdisc", "show", "dev", "eth0"):
                place.run("tc", "qdisc", "del", "dev", "eth0", "root")

    def limit(self, sender: str, rate: str) -> None:
        """What this host sends leaves at, for example, `1mbit`; the queue holds 400 ms."""
        shape = ["root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms"]
        self[sender].run("tc", "qdisc", "replace", "dev", "eth0", *shape)

    def blackhole(self, sender: str, receiver: str) -> None:
        """This host has no way there and its programs are told so at once, unlike with `cut`."""
        self[sender].run("ip", "route", "replace", "blackhole", f"{self[receiver].address}/32")

    def close(self) -> None:
        """Ends what runs in the places and removes them."""
        for place in self.places.values():
            _remove(place.namespace)
        if (_NETNS / self._switch).exists():
            _remove(self._switch)

    def _neighbour(self, sender: str, receiver: str, hardware: str) -> None:
        neighbour = [self[receiver].address, "lladdr", hardware, "dev", "eth0", "nud", "permanent"]
        self[sender].run("ip", "neigh", "replace", *neighbour)

    def _in_switch(self, *program: str) -> None:
        _run(*_inside(self._switch), *program)

    def _write_hosts(self) -> None:
        lines = ["127.0.0.1 localhost", *(f"{place.address} {place.name}" for place in self.places.values())]
        for place in self.places.values():
            folder = _ETC / place.namespace
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text("\n".join(lines) + "\n")


def remove_leftovers() -> None:
    """Places of processes that are no more."""
    for namespace in _NETNS.glob(f"{PREFIX}-*-*") if _NETNS.exists() else ():
        maker = namespace.name.split("-")[1]
        if maker.isdigit() and not Path(f"/proc/{maker}").exists():
            _remove(namespace.name)


def _remove(namespace: str) -> None:
    for pid in _run("ip", "netns", "pids", namespace).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _run("ip", "netns", "del", namespace)
    shutil.rmtree(_ETC / namespace, ignore_errors=True)


def _inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
