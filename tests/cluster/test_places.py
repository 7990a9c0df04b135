"""Places: hosts that see each other, partitions of every shape, and a whole cluster across three of them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cluster.harness import BINARY, DEMO, FAKE_RUNTIME, ROOT, Process, Room, until
from cluster.places import Place, Places, missing, remove_leftovers
from cluster.witness import Verdict, history

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

FAKE = {
    "MLX_SERVING_PYTHON_ENV": sys.prefix,
    "MLX_SERVING_RUNTIME_PROGRAM": FAKE_RUNTIME,
    "FAKE_RUNTIME": "t1_s=0.01",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(ROOT / "tests")]),
}


@pytest.fixture
def places() -> Iterator[Places]:
    with Places("one", "two", "three") as made:
        yield made


def bound(place: Place) -> socket.socket:
    with place.inside():
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.bind((place.address, 7_000))
        made.settimeout(10)
    return made


def reach(places: Places) -> set[str]:
    """Pairs `sender>receiver` whose datagrams arrive."""
    sockets = {name: bound(place) for name, place in places.places.items()}
    found: set[str] = set()
    for sender, source in sockets.items():
        for receiver in sockets:
            try:
                source.sendto(sender.encode(), (places[receiver].address, 7_000))
            except OSError:
                continue
    for receiver, sink in sockets.items():
        found |= {f"{sender}>{receiver}" for sender in heard(sink) if sender != receiver}
        sink.close()
    return found


def heard(sink: socket.socket) -> set[str]:
    """Who has been heard when it is quiet."""
    senders: set[str] = set()
    sink.settimeout(0.2)
    try:
        while True:
            senders.add(sink.recv(16).decode())
    except TimeoutError:
        return senders


EVERY = {f"{a}>{b}" for a in ("one", "two", "three") for b in ("one", "two", "three") if a != b}


def test_places_reach_each_other_and_nothing_else(places: Places) -> None:
    assert reach(places) == EVERY
    assert places["one"].run("ip", "-o", "link").count("\n") == 2, "loopback and one cable"
    with places["one"].inside(), pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("192.0.2.1", 80), 5)


def test_a_place_has_its_own_name_and_knows_the_others(places: Places) -> None:
    said = subprocess.run(places["two"].command("hostname"), capture_output=True, text=True, check=True).stdout
    assert said == "two\n"
    assert places["two"].run("getent", "hosts", "three").split() == [places["three"].address, "three"]


def test_a_partition_cuts_one_way_both_ways_or_some_pairs_and_heals(places: Places) -> None:
    places.cut("one", "two")
    assert reach(places) == EVERY - {"one>two"}
    places.heal()
    places.partition({"one"}, {"two", "three"})
    assert reach(places) == {"two>three", "three>two"}
    places.heal()
    places.partition({"one"}, {"two"})
    assert reach(places) == EVERY - {"one>two", "two>one"}, "three is on no side: a partial partition"
    places.heal()
    assert reach(places) == EVERY


def test_a_cut_is_silent_and_a_blackhole_is_told(places: Places) -> None:
    sender = bound(places["one"])
    places.cut("one", "two")
    sender.sendto(b"into the void", (places["two"].address, 7_000))
    places.blackhole("one", "two")
    with pytest.raises(OSError, match="Invalid argument"):
        sender.sendto(b"no way", (places["two"].address, 7_000))
    sender.close()
    places.heal()
    assert reach(places) == EVERY


def test_a_limited_cable_carries_no_more_than_its_rate(places: Places) -> None:
    places.limit("one", "8mbit")
    with places["two"].inside():
        listener = socket.create_server((places["two"].address, 7_001))
    with places["one"].inside():
        source = socket.create_connection((places["two"].address, 7_001), 10)
    sink, _ = listener.accept()
    began = time.monotonic()
    sending = threading.Thread(target=source.sendall, args=(bytes(1_000_000),))
    sending.start()
    left = 1_000_000
    while left:
        left -= len(sink.recv(65_536))
    assert time.monotonic() - began > 0.9, "a megabyte at 8 Mbit/s takes a second"
    sending.join(10)
    places.heal()
    for one in (source, sink, listener):
        one.close()


def test_what_a_crashed_test_left_behind_is_removed_and_the_living_are_left_alone(places: Places) -> None:
    program = (
        "import os, subprocess; from cluster.places import Places; places = Places('left');"
        "quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL);"
        "subprocess.Popen(places['left'].command('sleep', '600'), **quiet);"
        "print(os.getpid(), flush=True); os._exit(9)"
    )
    crashed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "tests", capture_output=True, text=True, check=False
    )
    assert crashed.returncode == 9, crashed.stderr
    left = f"mlxs-{crashed.stdout.strip()}-"
    assert left in places["one"].run("ip", "netns", "list")
    remove_leftovers()
    assert left not in places["one"].run("ip", "netns", "list")
    assert not list(Path("/etc/netns").glob(f"{left}*"))
    assert reach(places) == EVERY


class PlacedRoom(Room):
    """A coordinator in one place, agents in others; clients sit beside the coordinator, where alone its API is open."""

    def __init__(self, folder: Path, places: Places, coordinator: str) -> None:
        super().__init__(folder, api_port=7_440, cluster_port=7_443)
        self.places, self.host = places, places[coordinator]

    def serve(self) -> Process:
        ports = ["--api", "127.0.0.1:7440", "--listen", f"{self.host.address}:7443"]
        process = self.placed(
            self.host, "coordinator", ["coordinator", *ports], {"HOME": str(self.home("coordinator"))}
        )
        with self.host.inside():
            until("the coordinator leads", lambda: self.answers("/readyz") or self._check(process))
        return process

    def placed(self, place: Place, name: str, arguments: list[str], environment: dict[str, str]) -> Process:
        command = place.command(str(BINARY), *arguments)
        process = Process(name, command, environment, self.folder / f"{name}.log")
        process.start()
        self.processes.append(process)
        return process

    def home(self, name: str) -> Path:
        """An empty home folder."""
        made = self.folder / "homes" / name
        made.mkdir(parents=True)
        return made

    def token(self) -> str:
        line = [str(BINARY), "token", "show"]
        environment = os.environ | {"HOME": str(self.folder / "homes" / "coordinator")}
        return subprocess.run(line, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    def printed(self) -> str | None:
        found = re.search(r"^ +mlx-serving (agent .*)$", self.processes[0].said(), re.MULTILINE)
        return None if found is None else found[1]

    def joined(self, place: Place) -> Process:
        """The line that the coordinator prints for joining, typed in a place with an empty home."""
        # It serves a moment before it says how to join.
        until("the line is printed", lambda: self.printed() is not None)
        line = (self.printed() or "").replace("MODEL", "demo").replace("TOKEN", self.token())
        return self.placed(place, place.name, line.split(), FAKE | {"HOME": str(self.home(place.name))})


@pytest.fixture
def placed(tmp_path: Path, places: Places) -> Iterator[PlacedRoom]:
    made = PlacedRoom(tmp_path, places, "one")
    try:
        yield made
    finally:
        made.close()


def test_a_new_machine_joins_with_the_one_line_that_is_printed(
    placed: PlacedRoom, figure: Callable[[str], None]
) -> None:
    placed.serve()
    began = time.monotonic()
    placed.joined(placed.places["two"])
    with placed.host.inside():
        placed.ready()
        figure(f"a new machine serves {time.monotonic() - began:.1f} s after the one line, fake runtime")
        assert [node["name"] for node in placed.status()["nodes"]] == ["two"]


def test_a_cluster_over_three_hosts_serves_and_lives_through_a_partition(placed: PlacedRoom) -> None:
    placed.serve()
    for name in ("two", "three"):
        placed.joined(placed.places[name])
    with placed.host.inside():
        placed.ready(nodes=2)
        assert witnessed(placed, "before", rate=20) == {Verdict.WHOLE}
        placed.places.partition({"one"}, {"two"})
        until("two is out of rotation", lambda: connected(placed) == {"three"})
        body = {"model": DEMO, "prompt": [5, 6, 7], "max_tokens": 3, "temperature": 0}
        assert httpx.post(f"{placed.url}/v1/completions", json=body, timeout=60).status_code == 200
        placed.places.heal()
        until("two is back", lambda: connected(placed) == {"two", "three"})
        placed.ready(nodes=2)
        assert witnessed(placed, "after", rate=20) == {Verdict.WHOLE}


def connected(room: Room) -> set[str]:
    return {node["name"] for node in room.status()["nodes"] if node["connected"]}


def witnessed(room: PlacedRoom, name: str, rate: float) -> set[Verdict]:
    """The witness as a program beside the coordinator, for three seconds."""
    where = room.folder / f"{name}.jsonl"
    arguments = ["--url", room.url, "--rate", str(rate), "--seconds", "3", "--history", str(where)]
    command = room.host.command(sys.executable, "-m", "cluster.witness", *arguments)
    environment = os.environ | {"PYTHONPATH": FAKE["PYTHONPATH"]}
    done = subprocess.run(command, cwd=ROOT / "tests", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout).values()) == len(history(where)) > 20
    return {record.verdict for record in history(where)}
