"""Wires of one's own: a name leads each process through its own link, and a cut is between two, in one direction."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.wiring import Wiring, missing

pytestmark = pytest.mark.skipif(sys.platform != "linux" or bool(missing()), reason="mount namespaces need Linux")
# Says where the name led, and whether what was sent came back.
ASKING = """
import socket, sys
with socket.create_connection(("hub", int(sys.argv[1])), 5) as there:
    there.settimeout(0.5)
    there.sendall(b"x")
    try:
        print(there.getpeername()[0], there.recv(1).decode())
    except TimeoutError:
        print(there.getpeername()[0], "silence")
"""


@pytest.fixture
def hub() -> Iterator[tuple[int, list[bytes]]]:
    """A listener that returns what it gets; and what it got."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(1))
                connection.sendall(heard[-1])

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], heard
    listener.close()


@pytest.fixture
def wiring(hub: tuple[int, list[bytes]], tmp_path: Path) -> Iterator[Wiring]:
    made = Wiring(tmp_path, seed=1)
    made.listens("hub", hub[0])
    yield made
    made.close()


def asked(wiring: Wiring, who: str, port: int) -> list[str]:
    command = wiring.command(who, [sys.executable, "-c", ASKING, str(port)])
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()


def test_each_process_has_a_way_of_its_own_and_a_cut_is_between_two(
    hub: tuple[int, list[bytes]], wiring: Wiring
) -> None:
    port, _ = hub
    (one, answer), (two, other) = asked(wiring, "one", port), asked(wiring, "two", port)
    assert one != two and answer == other == "x"
    wiring.partition("one", ["hub"])
    assert asked(wiring, "one", port) == [one, "silence"]
    assert asked(wiring, "two", port) == [two, "x"]
    wiring.heal("one", ["hub"])
    assert asked(wiring, "one", port) == [one, "x"]


def test_one_direction_may_be_cut(hub: tuple[int, list[bytes]], wiring: Wiring) -> None:
    port, heard = hub
    asked(wiring, "one", port)
    wiring.send("hub", "one", blocked=True)
    assert asked(wiring, "one", port)[1] == "silence" and len(heard) == 2, "it was heard"
    wiring.heal("hub", ["one"])
    wiring.send("one", "hub", blocked=True)
    assert asked(wiring, "one", port)[1] == "silence" and len(heard) == 2, "it was not heard"
