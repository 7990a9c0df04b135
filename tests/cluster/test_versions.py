"""The cluster's version: it rises when every coordinator speaks it, and whoever does not speak it is told so.

With `MLX_SERVING_OLD_BIN`, a binary of the release before (version 1), coordinators are also updated under load.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import httpx
import pytest

from cluster.client import ask, chat
from cluster.group import Coordinator, Group
from cluster.harness import BINARY, DEMO, free_port, until
from cluster.load import Load

OLD = os.environ.get("MLX_SERVING_OLD_BIN", "")
SHORT = {"max_tokens": 4, "seed": 7}
HOLD = ["--speak-version", "1"]
NEWEST = 4


def version(member: Coordinator) -> int | None:
    return (member.status() or {}).get("cluster_version")


def reaches(group: Group, number: int) -> None:
    for member in group.members:
        until(f"{member.name} is at version {number}", lambda member=member: version(member) == number)


def spoken(member: Coordinator) -> list[int]:
    """What all of them speak, the least first: who joined before whom is chance. Who does not answer speaks 0."""
    return sorted(entry["speaks"] or 0 for entry in (member.status() or {"coordinators": []})["coordinators"])


def shown(member: Coordinator) -> str:
    """What `mlx-serving status` prints."""
    words = [str(BINARY), "status", "--url", member.url]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout


def restart(member: Coordinator, command: list[str]) -> None:
    """As an operator does it: its running answers end first."""
    member.process.send(signal.SIGTERM)
    assert member.process.wait() == 0, member.process.said()
    member.process.command = command
    member.process.start()
    until(f"{member.name} knows who leads", member.knows_who_leads)


def refused(member: Coordinator, command: list[str]) -> str:
    """What it says when it does not start."""
    if member.process.alive():
        member.process.send(signal.SIGTERM)
        member.process.wait()
    before = len(member.process.said())
    member.process.command = command
    member.process.start()
    assert member.process.wait() != 0
    return member.process.said()[before:]


def newcomer(group: Group, program: str, *more: str) -> str:
    """What one more coordinator says, which is not let in."""
    ports = ["--api", f"127.0.0.1:{free_port()}", "--listen", f"127.0.0.1:{free_port()}"]
    words = [program, "coordinator", *ports, "--home", str(group.folder / "newcomer"), *more]
    words += ["--join", group.members[0].address, "--token", group.token("coordinator")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode != 0
    return ended.stderr


def test_three_coordinators_reach_the_newest_version_and_keep_it_through_the_death_of_all(group: Group) -> None:
    group.found()
    reaches(group, NEWEST)
    until("all are heard", lambda: spoken(group.members[1]) == [NEWEST] * 3)
    words = shown(group.members[1])
    assert f"cluster version {NEWEST}" in words and "coordinators:" not in words, words
    for member in group.members:
        member.process.kill()
    for member in group.members:
        member.process.start()
    reaches(group, NEWEST)


def test_a_coordinator_that_is_held_back_holds_the_cluster_until_it_is_let_go(group: Group) -> None:
    group.found(more=dict.fromkeys(range(3), HOLD))
    free, held = group.members[0], group.members[2]
    command = held.process.command
    for member in group.members[:2]:
        restart(member, [word for word in member.process.command if word not in HOLD])
    until("all are heard", lambda: spoken(free) == [1, NEWEST, NEWEST])
    # On a busy machine one may be late with its answer, and is silent for a moment.
    until("the one that holds it is named", lambda: " speaks 1" in shown(free))
    assert f"cluster version 1\ncoordinators: 1 speaks {NEWEST}, " in shown(free)
    restart(held, [word for word in command if word not in HOLD])
    reaches(group, NEWEST)
    words = refused(held, command)
    assert f"this cluster speaks version {NEWEST}" in words and "start it without --speak-version" in words, words
    assert f"this cluster speaks version {NEWEST}; update mlx-serving on this machine" in newcomer(
        group, str(BINARY), *HOLD
    )


@pytest.mark.skipif(not OLD, reason="MLX_SERVING_OLD_BIN names no binary of the release before")
def test_coordinators_are_updated_one_by_one_under_load_and_the_old_release_cannot_come_back(
    group: Group, figure: Callable[[str], None]
) -> None:
    group.found(programs={0: OLD, 1: OLD})
    agent = group.prepared("one", "demo", fake="t1_s=0.01")
    # Agents are updated when the coordinators are, or later.
    agent.command[0] = OLD
    agent.start()
    group.all_ready(DEMO, 1)
    new = group.members[2]
    gateways = [member.url for member in group.members]
    load = Load(gateways, 6, lambda line: chat(DEMO, f"line {line}", max_tokens=8, seed=line))
    load.more(12)
    until("two are of the release before", lambda: spoken(new) == [1, 1, NEWEST])
    for member in group.members[:2]:
        assert version(new) != NEWEST
        load.gateways = [url for url in gateways if url != member.url]
        load.more(12)
        restart(member, [str(BINARY), *member.process.command[1:]])
        until("it serves again", lambda member=member: member.is_ready(DEMO, 1))
        load.gateways = gateways
        load.more(12)
    reaches(group, NEWEST)
    load.more(12)
    answers = load.stop()
    assert all(answer.clean for answer in answers), [answer for answer in answers if not answer.clean]
    figure(f"two of three coordinators updated under load: {len(answers)} answers, all whole")

    # The log is behind a snapshot of the version by then; either way the old release leaves it alone.
    words = refused(new, [OLD, *new.process.command[1:]])
    assert "use the newer release" in words, words
    assert f"this cluster speaks version {NEWEST}; update mlx-serving on this machine" in newcomer(group, OLD)
    assert ask(group.members[0].url, chat(DEMO, **SHORT)).status_code == 200
    assert httpx.get(f"{group.members[1].url}/readyz").status_code == 200
