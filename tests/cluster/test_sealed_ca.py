"""The private key of the cluster's authority is sealed on every disk: in the log, in snapshots and in backups.

With `MLX_SERVING_OLD_BIN`, a binary of the release before, a cluster that it founded is sealed as well.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.client import ask, chat
from cluster.group import Coordinator, Group
from cluster.harness import BINARY, DEMO, Room, until

OLD = os.environ.get("MLX_SERVING_OLD_BIN", "")
SHORT = {"max_tokens": 4, "seed": 7}
BEGIN, END = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"


def quarter(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for one, two, three, left in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[one] = (state[one] + state[two]) & 0xFFFFFFFF
        mixed = state[three] ^ state[one]
        state[three] = ((mixed << left) | (mixed >> (32 - left))) & 0xFFFFFFFF


def unsealed(key: bytes, sealed: bytes) -> str:
    """ChaCha20 of RFC 8439, without the tag: what does not begin like a key was not one."""
    nonce, text = sealed[:12], sealed[12:-16]
    out = bytearray()
    for block in range(0, len(text), 64):
        first = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key)]
        first += [1 + block // 64, *struct.unpack("<3I", nonce)]
        state = list(first)
        for _ in range(10):
            for column in range(4):
                quarter(state, column, 4 + column, 8 + column, 12 + column)
            for column in range(4):
                quarter(state, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
        mask = struct.pack("<16I", *((one + two) & 0xFFFFFFFF for one, two in zip(first, state, strict=True)))
        out += bytes(one ^ two for one, two in zip(text[block : block + 64], mask, strict=False))
    pem = out.decode()
    assert pem.startswith(BEGIN), "no key came out"
    return pem


def forms(pem: str) -> list[bytes]:
    """Everything by which the key would be found: lines of the PEM, DER, and the bare number."""
    lines = pem.replace("\\n", "\n").replace("\r", "").split(BEGIN)[1].split(END)[0].split()
    der = base64.b64decode("".join(lines))
    at = der.index(b"\x02\x01\x01\x04\x20") + 5
    number = der[at : at + 32]
    return [*(line.encode() for line in lines), der, number, number.hex().encode(), base64.b64encode(number)]


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name not in ("seal-key", "ballast"))


def found_in(folder: Path, wanted: list[bytes]) -> list[str]:
    """Files come and go while coordinators run."""
    found: list[str] = []
    for path in files(folder):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        found += [str(path)] * any(form in content for form in wanted)
    return found


def fact(folder: Path, name: str) -> str | None:
    """A text among the facts on a disk."""
    pattern = re.compile(f'"{name}":"([^"]+)"'.encode())
    registry = (folder / "coordinator" / "registry").glob("*")
    hits = (pattern.search(path.read_bytes()) for path in registry if path.is_file() and path.name != "ballast")
    return next((hit.group(1).decode() for hit in hits if hit), None)


def seal_key(member: Coordinator, group: Group) -> Path:
    return group.folder / member.name / "coordinator" / "seal-key"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


def trouble(member: Coordinator) -> str:
    return ((member.status() or {}).get("coordinator") or {}).get("trouble") or ""


def test_no_disk_and_no_backup_holds_the_key_and_every_coordinator_can_sign(group: Group, tmp_path: Path) -> None:
    group.found()
    founder, other = group.members[0], group.members[1]
    for member in group.members:
        until(f"{member.name} has the seal key", seal_key(member, group).exists)
        assert seal_key(member, group).stat().st_mode & 0o777 == 0o600
    assert len({seal_key(member, group).read_text() for member in group.members}) == 1
    backup = tmp_path / "facts"
    made = run("backup", backup, "--url", other.url, "--home", group.folder / other.name)
    assert made.returncode == 0 and f"needs the seal key, {seal_key(other, group)}" in made.stderr, made

    founder.process.kill()
    agent = group.agent("late", "demo", fake="", coordinator=other.address, token=group.token(), start=False)
    agent.start()
    group.all_ready(DEMO, 1)
    assert ask(other.url, chat(DEMO, **SHORT)).status_code == 200
    # One that lacks the key fetches it, also while it starts with the certificate it had.
    founder_key = seal_key(founder, group)
    text = founder_key.read_text()
    founder_key.unlink()
    founder.process.start()
    until("the founder has fetched the key", lambda: founder_key.exists() and founder_key.read_text() == text)
    until("the founder can sign again", lambda: founder.status() is not None and not trouble(founder))

    sealed = fact(group.folder / founder.name, "sealed_ca_key")
    assert sealed, "no sealed key among the facts"
    key = forms(unsealed(bytes.fromhex(text.strip()), bytes.fromhex(sealed)))
    assert len({path.parent for path in files(tmp_path)}) > 6, "the homes were not searched"
    assert found_in(tmp_path, key) == []
    assert found_in(tmp_path, [text.strip().encode(), bytes.fromhex(text.strip())]) == []

    restored = Room(tmp_path / "restored")
    home = tmp_path / "restored" / "coordinator-home"
    try:
        wrong = tmp_path / "wrong"
        wrong.write_text("00" * 32)
        for more in ([], ["--seal-key", wrong]):
            refused = run("restore", backup, "--home", home, *more)
            assert refused.returncode == 1 and "with --seal-key FILE" in refused.stderr, refused
            assert not home.exists(), "nothing was changed"
        done = run("restore", backup, "--home", home, "--seal-key", seal_key(other, group))
        assert done.returncode == 0, done
        restored.coordinator()
    finally:
        restored.close()


def test_a_cluster_whose_seal_key_is_lost_serves_on_and_says_what_to_do(room: Room) -> None:
    coordinator = room.coordinator()
    room.agent("one", "demo", fake="")
    room.ready()
    key = room.folder / "coordinator-home" / "coordinator" / "seal-key"
    kept = key.read_text()
    key.unlink()
    coordinator.kill()
    coordinator.start()
    room.ready()
    assert ask(room.url, chat(DEMO, **SHORT)).status_code == 200
    said = run("status", "--url", room.url, "--home", room.folder / "coordinator-home")
    assert "seal_key_missing" in said.stdout + said.stderr and "seal_key_missing" in coordinator.said(), said
    late = room.agent("late", "demo", fake="")
    until("the newcomer hears why", lambda: "lacks the seal key" in late.said())
    key.write_text(kept)
    room.ready(nodes=2)


@pytest.mark.parametrize("program", ["", pytest.param(OLD, marks=pytest.mark.skipif(not OLD, reason="no old binary"))])
def test_a_cluster_with_a_plain_key_is_sealed_when_all_can_read_that(group: Group, program: str) -> None:
    hold = [] if program else ["--speak-version", "2"]
    count = 3 if program else 1
    group.found(count, programs=dict.fromkeys(range(count), program or str(BINARY)), more=dict.fromkeys(range(3), hold))
    pem = fact(group.folder / group.members[0].name, "ca_key_pem")
    assert pem, "the key is plain"
    key = forms(pem)
    for member in group.members:
        until(f"{member.name} has the facts", lambda member=member: found_in(group.folder / member.name, key))
        member.process.send(signal.SIGTERM)
        assert member.process.wait() == 0, member.process.said()
        member.process.command = [str(BINARY), *(word for word in member.process.command[1:] if word not in hold)]
        member.process.start()
        until(f"{member.name} knows who leads", member.knows_who_leads)
    until("no disk holds the key", lambda: not found_in(group.folder, key))
    assert fact(group.folder / group.members[0].name, "sealed_ca_key")
    for member in group.members:
        member.process.kill()
        member.process.start()
    for member in group.members:
        until(f"{member.name} serves again", member.knows_who_leads)
        assert not trouble(member)
    group.worker("one", "demo", fake="")
    group.all_ready(DEMO, 1)
