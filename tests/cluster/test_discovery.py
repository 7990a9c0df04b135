"""Nobody types an address: agents find their own cluster, and a name that all may use goes with the lead."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.harness import BINARY, Process, Room, until
from cluster.places import Place, Places, missing
from cluster.test_places import FAKE

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

MULTICAST = ("224.0.0.251", 5353)


@pytest.fixture
def places() -> Iterator[Places]:
    with Places("one", "two", "three") as made:
        yield made


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path, api_port=7_440, cluster_port=7_443)
    try:
        yield made
    finally:
        made.close()


def placed(room: Room, place: Place, name: str, *arguments: str) -> Process:
    home = room.folder / "homes" / name
    home.mkdir(parents=True, exist_ok=True)
    command = place.command(str(BINARY), *arguments)
    process = Process(name, command, FAKE | {"HOME": str(home)}, room.folder / f"{name}.log")
    process.start()
    room.processes.append(process)
    return process


def coordinator(room: Room, place: Place, name: str, *more: str) -> Process:
    process = placed(room, place, name, "coordinator", "--listen", f"{place.address}:7443", *more)
    with place.inside():
        until(f"{name} leads", lambda: room.answers("/readyz") or room._check(process))
    return process


def token(room: Room, name: str) -> str:
    environment = os.environ | {"HOME": str(room.folder / "homes" / name)}
    line = [str(BINARY), "token", "show"]
    return subprocess.run(line, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def asked(place: Place, host: str) -> set[str]:
    """The addresses that the network gives for a name below `.local`, within a moment."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in host.split(".")) + b"\0"
    # One question, for an address (type A), to be answered to the asker alone.
    question = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + labels + struct.pack("!2H", 1, 0x8001)
    with place.inside():
        asking = socket.socket(type=socket.SOCK_DGRAM)
    asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(place.address))
    asking.settimeout(0.5)
    asking.sendto(question, MULTICAST)
    found: set[str] = set()
    try:
        while True:
            answer, sender = asking.recvfrom(9_000)
            if labels[:-1] in answer and socket.inet_aton(sender[0]) in answer:
                found.add(sender[0])
    except TimeoutError:
        return found
    finally:
        asking.close()


def test_an_agent_finds_its_own_cluster_among_two_and_again_after_a_restart(room: Room, places: Places) -> None:
    coordinator(room, places["one"], "ours")
    coordinator(room, places["two"], "theirs")
    agent = placed(room, places["three"], "mini", "agent", "--model", "demo", "--token", token(room, "ours"))
    with places["one"].inside():
        room.ready()
    assert f"found coordinators={places['one'].address}:7443" in plain(agent.said()).replace('"', "")
    with places["two"].inside():
        assert room.status()["nodes"] == []
    agent.kill()
    with places["one"].inside():
        until("it is missed", lambda: not room.status()["nodes"][0]["connected"])
    # It knows which cluster is its own, without a token.
    placed(room, places["three"], "mini", "agent")
    with places["one"].inside():
        until("it is back", lambda: room.status()["nodes"][0]["connected"])


def plain(said: str) -> str:
    """Without colours."""
    return said.replace("\x1b[3m", "").replace("\x1b[0m", "").replace("\x1b[2m", "")


def test_who_is_not_announced_is_not_found_and_the_words_say_what_to_do(room: Room, places: Places) -> None:
    coordinator(room, places["one"], "ours", "--no-mdns")
    agent = placed(room, places["two"], "mini", "agent", "--model", "demo", "--token", token(room, "ours"))
    assert agent.popen
    assert agent.popen.wait(30) == 6, agent.said()
    assert "--coordinator HOST" in agent.said()


def test_the_name_of_all_clusters_leads_to_the_one_that_leads(room: Room, places: Places) -> None:
    process = coordinator(room, places["one"], "ours", "--api", "0.0.0.0:7440")
    until("the name is there", lambda: asked(places["two"], "mlx-serving.local") == {places["one"].address})
    process.kill()
    assert asked(places["two"], "mlx-serving.local") == set()
