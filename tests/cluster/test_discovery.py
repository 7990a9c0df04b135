"""Nobody types an address: agents find their own cluster, and one name leads clients to every gateway."""

from __future__ import annotations

import os
import re
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
    with Places("one", "two", "three", "away") as made:
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
    return said(room, name, [str(BINARY), "token", "show"])


def said(room: Room, name: str, line: list[str]) -> str:
    """What a command says that an operator gives at this home."""
    environment = os.environ | {"HOME": str(room.folder / "homes" / name)}
    return subprocess.run(line, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def asked(places: Places, asker: str) -> set[str]:
    """The names of the places to which the network leads whoever asks for `mlx-serving.local`, within a moment."""
    labels = b"".join(bytes([len(label)]) + label for label in (b"mlx-serving", b"local")) + b"\0"
    # One question, for an address (type A), to be answered to the asker alone.
    question = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + labels + struct.pack("!2H", 1, 0x8001)
    with places[asker].inside():
        asking = socket.socket(type=socket.SOCK_DGRAM)
    asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(places[asker].address))
    asking.settimeout(0.5)
    asking.sendto(question, MULTICAST)
    found: set[str] = set()
    try:
        while True:
            answer = asking.recv(9_000)
            if labels[:-1] in answer:
                # The data of a record with an address: type A, any class and lifetime, four bytes.
                record = rb"\x00\x01[\x00\x80]\x01.{4}\x00\x04"
                found |= {
                    name
                    for name, place in places.places.items()
                    if re.search(record + re.escape(socket.inet_aton(place.address)), answer, re.DOTALL)
                }
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


def test_the_name_for_clients_leads_to_every_coordinator_that_is_ready(room: Room, places: Places) -> None:
    def led_to(*names: str) -> None:
        until(f"the name leads to {names}", lambda: asked(places, "away") == set(names))

    api = ("--api", "0.0.0.0:7440")
    first = coordinator(room, places["one"], "one", *api)
    led_to("one")
    create = [*places["one"].command(str(BINARY), "token", "create", "--role", "coordinator", "--uses", "2")]
    secret = said(room, "one", create).split()[-1]
    join = ("--join", f"{places['one'].address}:7443", "--token", secret)
    second = coordinator(room, places["two"], "two", *api, *join)
    coordinator(room, places["three"], "three", *api, *join)
    led_to("one", "two", "three")
    second.kill()
    led_to("one", "three")
    second.start()
    led_to("one", "two", "three")
    # Whoever leads next answers for the name.
    first.kill()
    led_to("two", "three")
