"""Who gets in: tokens, identities, folders."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cluster.client import ask, chat
from cluster.harness import DEMO, Process, Room, until

FAKE = "t1_s=0.005"


def ended(process: Process) -> str:
    """Waits for the process to give up; what it said."""
    assert process.wait() != 0
    return process.said()


def agent(room: Room, name: str, token: str | None) -> Process:
    process = room.agent(name, "demo", fake=FAKE, start=False)
    at = process.command.index("--token")
    process.command[at : at + 2] = [] if token is None else ["--token", token]
    process.start()
    return process


def test_an_agent_without_a_token_is_told_how_to_get_one(room: Room) -> None:
    room.coordinator()
    words = ended(agent(room, "one", None))
    assert "token" in words and "mlx-serving" in words, words


@pytest.mark.parametrize("token", ["nonsense", "mlxc1.a.b.c", ""])
def test_a_token_that_is_none_is_refused_at_once(room: Room, token: str) -> None:
    room.coordinator()
    assert "token" in ended(agent(room, "one", token))


def test_a_token_with_a_wrong_secret_admits_nobody(room: Room) -> None:
    room.coordinator()
    good = room.join_token()
    head, secret = good.rsplit(".", 1)
    forged = f"{head}.{secret[:-4]}AAAA" if not secret.endswith("AAAA") else f"{head}.{secret[:-4]}BBBB"
    words = ended(agent(room, "one", forged))
    assert "token" in words, words
    assert room.status()["nodes"] == []


def test_a_token_of_another_cluster_is_refused_by_the_agent(
    room: Room, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The agent must not even send its secret to a cluster that the token does not pin."""
    other = Room(tmp_path_factory.mktemp("other"))
    try:
        other.coordinator()
        foreign = other.join_token()
        room.coordinator()
        words = ended(agent(room, "one", foreign))
        assert "cluster" in words, words
        assert room.status()["nodes"] == []
    finally:
        other.close()


def test_an_agent_joins_once_and_keeps_its_number_without_a_token(room: Room) -> None:
    room.coordinator()
    first = room.agent("one", "demo", fake=FAKE)
    room.ready()
    number = room.status()["nodes"][0]["node"]
    first.kill()
    agent(room, "one", None)
    until("it is back", lambda: room.status()["nodes"][0]["connected"])
    assert [node["node"] for node in room.status()["nodes"]] == [number]


def test_secrets_are_readable_by_their_owner_alone(room: Room) -> None:
    room.coordinator()
    room.agent("one", "demo", fake=FAKE)
    room.ready()
    loose = [path for path in secrets(room.folder) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert secrets(room.folder)
    assert not loose, loose


def secrets(folder: Path) -> list[Path]:
    """Files that hold a private key or a token."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".log")]
    small = [path for path in files if path.stat().st_size < 1_000_000]
    return [path for path in small if b"PRIVATE KEY" in path.read_bytes() or path.name == "join-token"]


def test_no_token_is_in_a_log(room: Room) -> None:
    coordinator = room.coordinator()
    agent = room.agent("one", "demo", fake=FAKE)
    room.ready()
    for process in (coordinator, agent):
        assert process.said()
        assert "mlxc1." not in process.said(), process.name
        assert "\x1b[" not in process.said(), "colours in a file"


def test_10_preload_preloads(room: Room) -> None:
    """A wanted model is resident before anybody asks for it."""
    room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.005,load_s=0.5")
    room.ready()
    assert [runtime["state"] for runtime in room.runtimes("one")] == ["ready"]
    assert ask(room.url, chat(DEMO, max_tokens=2)).status_code == 200
