"""The cluster's authority gives way to another one under load: no answer notices, and the former one ends."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from cluster.client import ask, chat
from cluster.group import Coordinator, Group
from cluster.harness import BINARY, DEMO, Room, until
from cluster.load import Load

PACE = "t1_s=0.05"
LONG = {"max_tokens": 40, "seed": 7}
SHORT = {"max_tokens": 4, "seed": 7}
# At both gateways that live all through; two agents have places for more.
STREAMS = 2


def run(url: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(BINARY), *words, "--url", url, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def shown(url: str, home: Path) -> dict[str, Any]:
    looked = run(url, home, "ca", "--output", "json")
    assert looked.returncode == 0, looked
    return json.loads(looked.stdout)


def begun(url: str, home: Path) -> dict[str, Any]:
    """A young cluster has the version that knows of rotations within a second."""
    until("a rotation has begun", lambda: run(url, home, "ca", "rotate", "--no-wait").returncode == 0)
    return shown(url, home)["rotation"]


def names(rotation: dict[str, Any]) -> set[str]:
    return {member["name"] for member in rotation["awaited"]}


def membership(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "agent" / "identity" / "membership.json").read_text())


def taken(port: int, identity: Path) -> str:
    """What becomes of a connection under a kept certificate: empty where it is taken, or the words of the refusal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    leaf = identity / "leaf.pem"
    leaf.write_text(json.loads((identity / "membership.json").read_text())["certificate_pem"])
    context.load_cert_chain(leaf, identity / "key.pem")
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as tcp, context.wrap_socket(tcp) as tls:
            # In TLS 1.3 the refusal comes after the handshake; whoever is taken hears the first frame of HTTP/2.
            return "" if tls.read(9) else "closed"
    except ssl.SSLError as refused:
        return str(refused)


def sealed_key(folder: Path) -> bytes:
    for path in (folder / "coordinator" / "registry").glob("log-*"):
        _, found, rest = path.read_bytes().partition(b'"sealed_ca_key":"')
        if found:
            return rest.split(b'"')[0]
    raise AssertionError("no sealed key in the log")


def holders(group: Group, what: bytes) -> list[str]:
    found: list[str] = []
    for member in group.members:
        for path in (group.folder / member.name / "coordinator" / "registry").glob("*"):
            try:
                found += [str(path)] * (path.name != "ballast" and what in path.read_bytes())
            except FileNotFoundError:
                continue
    return found


def asked_once(member: Coordinator) -> httpx.Response:
    headers = {"idempotency-key": "before-and-after"}
    return httpx.post(f"{member.url}/v1/chat/completions", json=chat(DEMO, **SHORT), headers=headers, timeout=60)


def what_is_of_before_is_refused(group: Group, stolen: Path, old_token: str) -> None:
    """A certificate, and a token: both in words that say what to do."""
    refusals = [taken(member.cluster_port, stolen / "agent" / "identity") for member in group.members]
    assert all("unknown ca" in refused.lower() for refused in refusals), refusals
    address = group.members[0].address
    thief = group.agent("thief", "demo", fake="", start=False, coordinator=address, token=old_token)
    thief.command[thief.command.index("--home") + 1] = str(stolen)
    thief.start()
    until("it hears what to do", lambda: "authority was rotated" in thief.said() and "token create" in thief.said())
    guest = group.agent("guest", "demo", fake="", coordinator=address, token=old_token)
    until("a token of before is refused", lambda: not guest.alive())
    assert "authority was rotated since" in guest.said() and "token create" in guest.said(), guest.said()


def test_the_authority_is_rotated_under_load_and_no_answer_notices(
    group: Group, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    group.found()
    one, two = (group.worker(name, "demo", fake=PACE) for name in ("one", "two"))
    group.all_ready(DEMO, 2)
    leader = group.leader()
    living = group.followers()
    gateway, home = living[0], group.folder / living[0].name
    whole = ask(gateway.url, chat(DEMO, **LONG)).json()["choices"][0]["message"]["content"]
    kept = asked_once(gateway)
    old_token, old_key = group.token(), sealed_key(group.folder / group.members[0].name)
    stolen = tmp_path / "stolen"
    shutil.copytree(group.folder / "one" / "agent" / "identity", stolen / "agent" / "identity")
    former = shown(gateway.url, home)["authority"]

    two.kill()
    load = Load([member.url for member in living], STREAMS * len(living), lambda _: chat(DEMO, **LONG))
    started = time.monotonic()
    rotation = begun(gateway.url, home)
    assert rotation["former_authority"] == former and rotation["number"] == 1, rotation
    until("all but one have moved", lambda: names(shown(gateway.url, home)["rotation"]) == {"two"})
    moved_s = time.monotonic() - started
    assert taken(gateway.cluster_port, stolen / "agent" / "identity") == "", "the former authority is trusted still"
    # A second call joins the rotation that is under way, and waits for its end.
    command = [str(BINARY), "ca", "rotate", "--url", gateway.url, "--home", str(home)]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    leader.process.kill()
    until("another leads", lambda: any(member.leads() for member in living))
    two.start()
    until("who was away has moved", lambda: not names(shown(gateway.url, home)["rotation"] or {"awaited": []}))
    said, words = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, words
    assert "two) is missing" in words and "it is over" in words, words
    ended_s = time.monotonic() - started
    new = shown(gateway.url, home)
    assert said.strip() == new["authority"] != former and new["rotation"] is None and new["rotations"] == 1, new
    # The killed one has moved before, and comes back with facts from before the end.
    leader.process.start()
    until("it is back", lambda: ask(leader.url, chat(DEMO, **SHORT)).status_code == 200)
    until("all see both agents", lambda: all(member.is_ready(DEMO, 2) for member in group.members))
    answers = load.stop()
    assert all(answer.clean for answer in answers), [answer for answer in answers if not answer.clean]
    assert {answer.text for answer in answers} == {whole}
    figure(f"{len(answers)} answers; all but the one away had moved after {moved_s:.1f} s, over after {ended_s:.1f} s")

    what_is_of_before_is_refused(group, stolen, old_token)
    # All start anew, the agents with the token of before in their settings. What was answered once is answered again.
    for process in (one, two, gateway.process):
        process.send(signal.SIGTERM)
        process.wait()
        process.start()
    group.all_ready(DEMO, 2)
    again = asked_once(gateway)
    assert (again.status_code, again.json()["id"]) == (200, kept.json()["id"]), "its number in the registry is the same"
    until("there is a new token", lambda: group.token() != old_token)
    group.worker("late", "demo", fake=PACE)
    group.all_ready(DEMO, 3)
    until("no disk holds the former key", lambda: not holders(group, old_key))
    trail = run(gateway.url, home, "audit", "--verify")
    assert trail.returncode == 0, trail
    actions = run(gateway.url, home, "audit").stdout
    assert actions.count("begin rotation 1") == 1 and actions.count("end rotation 1") == 1, actions


def test_a_backup_of_the_middle_lives_on_and_who_is_abandoned_joins_again(room: Room, tmp_path: Path) -> None:
    coordinator = room.coordinator()
    agent = room.agent("one", "demo", fake=PACE)
    room.ready()
    home = room.folder / "coordinator-home"
    agent.kill()
    assert names(begun(room.url, home)) >= {"one"}
    until("the coordinator has moved", lambda: names(shown(room.url, home)["rotation"]) == {"one"})
    impatient = run(room.url, home, "ca", "rotate", "--patience", "0")
    assert impatient.returncode == 3 and "(one) is missing" in impatient.stderr, impatient
    assert "ends without them at" in impatient.stderr, impatient
    facts = tmp_path / "facts"
    assert run(room.url, home, "backup", str(facts)).returncode == 0

    coordinator.kill()
    restored = tmp_path / "restored"
    command = [str(BINARY), "restore", str(facts), "--home", str(restored)]
    command += ["--seal-key", str(home / "coordinator" / "seal-key")]
    assert subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).returncode == 0
    coordinator.command[coordinator.command.index("--home") + 1] = str(restored)
    coordinator.start()
    until("it serves", lambda: room.answers("/readyz"))
    rotation = shown(room.url, restored)["rotation"]
    assert rotation["number"] == 1 and names(rotation) == {"one"}, rotation

    refused = run(room.url, restored, "ca", "rotate", "--abandon-absent")
    assert refused.returncode == 8 and "agent-1 (one) is missing" in refused.stderr, refused
    assert "--they-join-anew" in refused.stderr and shown(room.url, restored)["rotation"], refused
    over = run(room.url, restored, "ca", "rotate", "--abandon-absent", "--they-join-anew")
    assert over.returncode == 0 and shown(room.url, restored)["rotations"] == 1, over
    agent.start()
    until("it hears what to do", lambda: "authority was rotated" in agent.said())
    agent.kill()
    made = run(room.url, restored, "token", "create")
    agent.command[agent.command.index("--token") + 1] = made.stdout.strip()
    agent.start()
    until("it is the same node", lambda: [node["node"] for node in room.status()["nodes"] if node["connected"]] == [1])
    room.ready()
    assert ask(room.url, chat(DEMO, **SHORT)).status_code == 200
