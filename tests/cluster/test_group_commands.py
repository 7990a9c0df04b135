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

    restored = Room(tmp_path / "restored")
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
        # While nobody leads there is no list.
        words = (
            "coordinators",
            "ls",
            "--output",
            "json",
            "--url",
            second.url,
            "--home",
            str(group.folder / second.name),
        )
        listed = subprocess.run([str(BINARY), *words], capture_output=True, text=True, check=False, timeout=60)
        found = json.loads(listed.stdout)["coordinators"] if listed.returncode == 0 else []
        return [one["replica"] for one in found] == [2, 3]

    until("the founder has left", has_left)
    administer(second, group, "backup", str(file))
    for member in group.members:
        member.process.kill()

    restored = Room(tmp_path / "restored")
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
    finally:
        restored.close()


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
