"""The group of coordinators on the command line: shown, handed over, shrunk; a backup restored, and one that goes on
alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from cluster.client import ask, chat
from cluster.group import Coordinator, Group
from cluster.harness import BINARY, DEMO, Room, until

FAKE = "t1_s=0.01"
SHORT = {"max_tokens": 4, "seed": 7}


def command(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([str(BINARY), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done
    return done.stdout if code == 0 else done.stderr


def administer(member: Coordinator, group: Group, *arguments: str, code: int = 0) -> str:
    home = str(group.folder / member.name)
    return command(*arguments, "--url", member.url, "--home", home, code=code)


def shown(what: str, *where: str) -> list[dict[str, Any]]:
    """The list of them; while nobody leads there may be none."""
    words = [str(BINARY), what, "ls", "--output", "json", *where]
    listed = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return json.loads(listed.stdout)[what] if listed.returncode == 0 else []


def members(member: Coordinator, group: Group) -> list[dict[str, Any]]:
    said = administer(member, group, "coordinators", "ls", "--output", "json")
    return json.loads(said)["coordinators"]


def test_the_group_is_shown_handed_over_and_shrunk_from_any_coordinator(group: Group) -> None:
    group.found()
    group.worker("one", "demo", fake=FAKE)
    group.all_ready(DEMO, 1)
    follower = group.followers()[0]
    until("all have a vote", lambda: [one["role"] for one in members(follower, group)] == ["voter"] * 3)
    leads = next(one["replica"] for one in members(follower, group) if one["leader"])
    other = next(one["replica"] for one in members(follower, group) if not one["leader"])
    administer(follower, group, "coordinators", "lead", str(other))
    until("another leads", lambda: [one["replica"] for one in members(follower, group) if one["leader"]] == [other])

    words = administer(follower, group, "coordinators", "remove", str(leads), code=8)
    assert "2 voters" in words, words
    table = administer(follower, group, "coordinators", "remove", str(leads), "--even")
    assert len(table.splitlines()) == 3, table
    assert ask(follower.url, chat(DEMO, **SHORT)).status_code == 200


def test_the_facts_of_a_backup_begin_a_cluster_anew(group: Group, tmp_path: Path) -> None:
    group.found()
    first = group.members[0]
    key = administer(first, group, "keys", "create", "--name", "ada").strip()
    file = tmp_path / "facts"
    administer(first, group, "backup", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert "writing" in administer(first, group, "backup", str(file), code=1), "a file is never overwritten"
    for member in group.members:
        member.process.kill()

    # Where the founder looks for another coordinator, if it comes back.
    restored = Room(tmp_path / "restored", cluster_port=group.members[1].cluster_port)
    home = tmp_path / "restored" / "coordinator-home"
    try:
        key_file = group.folder / first.name / "coordinator" / "seal-key"
        words = ["restore", str(file), "--home", str(home)]
        assert int(command(*words, "--seal-key", str(key_file))) > 0
        coordinator = restored.coordinator()
        assert ask(restored.url, chat(DEMO, **SHORT)).status_code == 401, "the keys are facts"
        said = command("status", "--url", restored.url, "--key", key, code=5)
        assert "read" in said, said
        assert "in use" in command("restore", str(file), "--home", str(home), code=1)
        first.process.start()
        until("the founder of the former life ends", lambda: not first.process.alive())
        assert "began anew from a backup" in first.process.said() and "empty data folder" in first.process.said()
        coordinator.kill()
        assert "not empty" in command("restore", str(file), "--home", str(home), code=1)
    finally:
        restored.close()


def test_a_backup_is_restored_after_the_founder_has_left(group: Group, tmp_path: Path) -> None:
    group.found()
    file = tmp_path / "facts"
    second = group.members[1]
    administer(second, group, "nodes", "revoke", "coordinator-1")

    def has_left() -> bool:
        where = ["--url", second.url, "--home", str(group.folder / second.name)]
        return [one["replica"] for one in shown("coordinators", *where)] == [2, 3]

    until("the founder has left", has_left)
    administer(second, group, "backup", str(file))
    for member in group.members:
        member.process.kill()

    restored = Group(tmp_path / "restored")
    try:
        key_file = group.folder / second.name / "coordinator" / "seal-key"
        home = tmp_path / "restored" / "coordinator-home"
        command("restore", str(file), "--home", str(home), "--seal-key", str(key_file))
        coordinator = restored.coordinator()
        restored.agent("one", "demo", fake=FAKE)
        restored.ready()
        assert ask(restored.url, chat(DEMO, **SHORT)).status_code == 200
        # With another number than the founder's, which was revoked; and it finds its own folder again.
        coordinator.kill()
        coordinator.start()
        restored.ready()
        assert coordinator.alive()
        grows_and_is_led_by_another(restored, home)
    finally:
        restored.close()


def grows_and_is_led_by_another(restored: Group, home: Path) -> None:
    """The others take the restored coordinator for one of them: its clients are answered when it does not lead."""

    where = ["--url", restored.url, "--home", str(home)]

    def listed() -> list[dict[str, Any]]:
        return shown("coordinators", *where)

    own = until("who was restored leads", listed)[0]["replica"]
    token = (home / "coordinator" / "coordinator-join-token").read_text().strip()
    contact = f"127.0.0.1:{restored.cluster_port}"
    for name in ("coordinator-2", "coordinator-3"):
        restored.newcomer(name, contact, token)
    until("all have a vote", lambda: [one["role"] for one in listed()] == ["voter"] * 3)
    # Whoever heard fewer agents than another would hand over.
    restored.all_ready(DEMO, 1)
    other = next(one["replica"] for one in until("somebody leads", listed) if one["replica"] != own)

    def handed_over() -> Coordinator | None:
        # Where the machine is busy it may not be taken in time.
        words = [str(BINARY), "coordinators", "lead", str(other), *where]
        subprocess.run(words, capture_output=True, check=False, timeout=60)
        return next((member for member in restored.members if member.leads()), None)

    def answered() -> bool:
        leader = handed_over()
        answer = ask(restored.url, chat(DEMO, **SHORT)) if leader else None
        # All the while another led.
        if not leader or not leader.leads() or not answer or answer.status_code != 200:
            return False
        return bool(answer.json()["choices"][0]["finish_reason"])

    until("its clients are answered while another leads", answered)
    named = {node["id"]: node for node in shown("nodes", *where)}
    assert not named[f"coordinator-{own}"]["revoked"] and named["coordinator-1"]["revoked"], named


def test_the_last_coordinator_of_three_goes_on_alone(group: Group) -> None:
    group.found()
    agent = group.worker("one", "demo", fake=FAKE)
    group.all_ready(DEMO, 1)
    last = group.followers()[0]
    for member in group.members:
        member.process.kill()
    home = str(group.folder / last.name)
    assert "--others-are-gone" in command("coordinators", "alone", "--home", home, code=8)
    command("coordinators", "alone", "--others-are-gone", "--advertise", last.address, "--home", home)
    last.process.start()
    until("it leads", last.leads)
    assert [one["role"] for one in members(last, group)] == ["voter"]
    until("the agent came back", lambda: last.is_ready(DEMO, 1))
    assert ask(last.url, chat(DEMO, **SHORT)).status_code == 200
    assert agent.alive()
    # The others could elect one of them, and would serve the room a second time.
    former = [member for member in group.members if member is not last]
    for member in former:
        member.process.start()
    for member in former:
        until(f"{member.name} ends", lambda member=member: not member.process.alive())
        assert "began anew without it" in member.process.said() and "empty data folder" in member.process.said()
    assert ask(last.url, chat(DEMO, **SHORT)).status_code == 200
