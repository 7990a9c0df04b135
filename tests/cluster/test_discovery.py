"""Nobody types an address: agents find their own cluster, and one name leads clients to every gateway."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import struct
import subprocess
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import httpx
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


def placed(room: Room, place: Place, name: str, *arguments: str, through: Sequence[str] = ()) -> Process:
    home = room.folder / "homes" / name
    home.mkdir(parents=True, exist_ok=True)
    command = place.command(*through, str(BINARY), *arguments)
    process = Process(name, command, FAKE | {"HOME": str(home)}, room.folder / f"{name}.log")
    process.start()
    room.processes.append(process)
    return process


def coordinator(room: Room, place: Place, name: str, *more: str, through: Sequence[str] = ()) -> Process:
    process = placed(room, place, name, "coordinator", "--listen", f"{place.address}:7443", *more, through=through)
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
    ours = coordinator(room, places["one"], "ours")
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
    agent = placed(room, places["three"], "mini", "agent")
    with places["one"].inside():
        until("it is back", lambda: room.status()["nodes"][0]["connected"])
    # The power comes back, and it is there before any coordinator of its cluster.
    agent.kill()
    ours.kill()
    agent.start()
    until("it waits for those it knows", lambda: "none is announced" in agent.said() or room._check(agent))
    ours.start()
    with places["one"].inside():
        until("it is there again", lambda: any(node["connected"] for node in room.status()["nodes"]))


def plain(said: str) -> str:
    """Without colours."""
    return said.replace("\x1b[3m", "").replace("\x1b[0m", "").replace("\x1b[2m", "")


def test_who_is_not_announced_is_not_found_and_the_words_say_what_to_do(room: Room, places: Places) -> None:
    coordinator(room, places["one"], "ours", "--no-mdns")
    agent = placed(room, places["two"], "mini", "agent", "--model", "demo", "--token", token(room, "ours"))
    assert agent.popen
    assert agent.popen.wait(30) == 6, agent.said()
    assert "--coordinator HOST" in agent.said()


def led_to(places: Places, *names: str) -> None:
    until(f"the name leads to {names}", lambda: asked(places, "away") == set(names))


API = ("--api", "0.0.0.0:7440")


def three(room: Room, places: Places, *through: str) -> dict[str, Process]:
    """Coordinators of one cluster, each at its place; their program is run by way of `through`."""
    made = {"one": coordinator(room, places["one"], "one", *API, through=through)}
    led_to(places, "one")
    create = [*places["one"].command(str(BINARY), "token", "create", "--role", "coordinator", "--uses", "2")]
    secret = said(room, "one", create).split()[-1]
    join = ("--join", f"{places['one'].address}:7443", "--token", secret)
    for name in ("two", "three"):
        made[name] = coordinator(room, places[name], name, *API, *join, through=through)
    led_to(places, *made)
    return made


def leader(room: Room, places: Places, names: Iterable[str]) -> str:
    def leads(name: str) -> bool:
        # Beyond loopback everybody needs a key.
        key = next((room.folder / "homes" / name).rglob("admin-key")).read_text().strip()
        with places[name].inside(), contextlib.suppress(httpx.TransportError):
            status = httpx.get(f"{room.url}/api/v1/status", headers={"x-api-key": key}, timeout=10).json()
            return bool(status["coordinator"]["leader"])
        return False

    return until("one of them leads", lambda: next(filter(leads, names), None))


def test_the_name_for_clients_leads_to_every_coordinator_that_is_ready(room: Room, places: Places) -> None:
    made = three(room, places)
    made["two"].kill()
    led_to(places, "one", "three")
    made["two"].start()
    led_to(places, *made)
    # Whoever leads next answers for the name.
    made.pop(leader(room, places, made)).kill()
    led_to(places, *made)


@contextlib.contextmanager
def asking_slowly(place: Place) -> Generator[None]:
    """A request under way, which a coordinator lets end before it does: its body does not come."""
    with place.inside():
        client = socket.create_connection((place.address, 7_440), 10)
    with client:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n"
        )
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100"), "the body is asked for"
        yield


def test_a_leader_that_ends_leads_nobody_to_itself_while_its_last_answers_run(room: Room, places: Places) -> None:
    made = three(room, places)
    ending = made.pop(leads := leader(room, places, made))
    with asking_slowly(places[leads]):
        ending.send(signal.SIGTERM)
        led_to(places, *made)
        assert ending.alive()
    assert ending.wait() == 0, ending.said()
    led_to(places, *made)


def test_a_leader_that_has_lost_its_disk_leaves_the_name_to_the_next(room: Room, places: Places) -> None:
    # A write beyond the largest size of a file is a signal, which ends whoever does not ignore it. A log is a file too.
    made = three(room, places, "sh", "-c", 'trap "" XFSZ; exec "$0" "$@" 2> /dev/null')
    ending = made.pop(leads := leader(room, places, made))
    with asking_slowly(places[leads]):
        resource.prlimit(ending.pid, resource.RLIMIT_FSIZE, (0, 0))
        with contextlib.suppress(subprocess.CalledProcessError):
            # It is to be written down.
            said(room, leads, places[leads].command(str(BINARY), "token", "create"))
        led_to(places, *made)
        assert ending.alive()
    led_to(places, *made)
