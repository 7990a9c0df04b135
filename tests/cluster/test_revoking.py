"""A node that is revoked is cut within a second, everywhere, and what ran there goes on elsewhere."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.client import Answer, ask, chat, stream
from cluster.group import Coordinator, Group
from cluster.harness import BINARY, DEMO, Room, until

SLOW = "t1_s=0.1"
LONG = {"max_tokens": 40, "seed": 7}
SHORT = {"max_tokens": 4, "seed": 7}


def administer(url: str, home: Path, *words: str) -> str:
    command = [str(BINARY), *words, "--url", url, "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def members(url: str, home: Path) -> dict[str, dict[str, Any]]:
    nodes = json.loads(administer(url, home, "nodes", "ls", "--output", "json"))["nodes"]
    return {node["id"]: node for node in nodes}


def home_of(group: Group, member: Coordinator) -> Path:
    return group.folder / member.name


def called(group: Group, member: Coordinator) -> str:
    """Its id. Two that start together join in either order, so its name says nothing."""
    kept = home_of(group, member) / "coordinator" / "identity" / "membership.json"
    # The founder was never admitted.
    node: int = json.loads(kept.read_text())["node"] if kept.exists() else 0
    return f"coordinator-{node + 1}"


def connected(member: Coordinator, node: str) -> bool:
    nodes = (member.status() or {"nodes": []})["nodes"]
    return any(entry["connected"] for entry in nodes if entry["name"] == node)


def busiest(group: Group) -> str:
    running = {node["name"]: node["running"] for node in (group.leader().status() or {})["nodes"]}
    return max(running, key=lambda name: running[name])


def test_a_node_revoked_under_streams_is_cut_everywhere_and_its_answers_go_on(
    group: Group, figure: Callable[[str], None]
) -> None:
    group.found()
    agents = {name: group.worker(name, "demo", fake=SLOW) for name in ("one", "two")}
    group.all_ready(DEMO, 2)
    whole = ask(group.members[0].url, chat(DEMO, **LONG)).json()["choices"][0]["message"]["content"]
    by = group.members[2]
    begun: set[int] = set()
    revoked: list[str] = []
    took: list[float] = []

    def revoke() -> None:
        revoked.append(busiest(group))
        said = administer(by.url, home_of(group, by), "nodes", "revoke", revoked[0])
        at = time.monotonic()
        assert "was revoked" in said and "token revoke" in said, said
        until("all have cut it", lambda: not any(connected(member, revoked[0]) for member in group.members))
        took.append(time.monotonic() - at)

    async def streams() -> list[Answer]:
        loop = asyncio.get_running_loop()
        striking: list[asyncio.Future[None]] = []

        def watch(number: int) -> Callable[[Answer], None]:
            def seen(answer: Answer) -> None:
                if len(answer.pieces) == 3:
                    begun.add(number)
                    if len(begun) == 6 and not striking:
                        striking.append(loop.run_in_executor(None, revoke))

            return seen

        urls = [member.url for member in group.members for _ in range(2)]
        body = chat(DEMO, **LONG)
        answers = await asyncio.gather(*(stream(url, body, watch(number)) for number, url in enumerate(urls)))
        await striking[0]
        return list(answers)

    answers = asyncio.run(streams())
    assert all(answer.clean for answer in answers), [answer for answer in answers if not answer.clean]
    assert {answer.text for answer in answers} == {whole}
    assert took[0] < 1.5, took
    agent = agents[revoked[0]]
    assert agent.wait() != 0
    assert "removed from the cluster" in agent.said() and "token create" in agent.said(), agent.said()
    # Started again as it was, it says so at once and asks nobody.
    before = time.monotonic()
    agent.start()
    assert agent.wait() != 0
    assert time.monotonic() - before < 30
    figure(f"a node revoked under six streams: all whole; cut by all three within {took[0]:.2f} s of the answer")


def test_a_revoked_machine_comes_back_as_another_node_with_a_new_token(room: Room) -> None:
    room.coordinator()
    agent = room.agent("one", "demo", fake=SLOW)
    room.ready()
    home = room.folder / "coordinator-home"
    administer(room.url, home, "nodes", "revoke", "agent-1")
    assert agent.wait() != 0
    at = agent.command.index("--token")
    agent.command[at + 1] = administer(room.url, home, "token", "create").strip()
    agent.start()
    room.ready()
    known = members(room.url, home)
    assert (known["agent-1"]["revoked"], known["agent-2"]["revoked"]) == (True, False)
    assert ask(room.url, chat(DEMO, **SHORT)).status_code == 200


def test_up_ends_with_its_agent_and_says_why(room: Room) -> None:
    up = room.up("--quiet")
    room.ready()
    until("it has said how to go on", lambda: "Ctrl-C" in up.said())
    administer(room.url, room.folder / "up-home", "nodes", "revoke", "agent-1")
    assert up.wait(60) == 1
    assert "removed from the cluster" in up.said(), up.said()


def test_a_revoked_coordinator_leaves_and_the_rest_goes_on(group: Group, figure: Callable[[str], None]) -> None:
    group.found()
    agent = group.worker("one", "demo", fake=SLOW)
    group.all_ready(DEMO, 1)
    leader, followers = group.leader(), group.followers()
    number = [int(key.split("-")[1]) for key in members(leader.url, home_of(group, leader)) if "coord" in key]
    assert number == [1, 2, 3]
    gone, by = followers
    administer(by.url, home_of(group, by), "nodes", "revoke", called(group, gone))
    began = time.monotonic()
    until("it ends", lambda: not gone.process.alive(), 30)
    ended = time.monotonic() - began
    assert "removed from the cluster" in gone.process.said()
    for member in (leader, by):
        assert ask(member.url, chat(DEMO, **SHORT)).status_code == 200
    # Its data folder lets it in no more, and no agent either.
    gone.process.start()
    assert gone.process.wait() != 0
    assert "removed from the cluster" in gone.process.said()
    assert agent.alive()
    figure(f"a revoked coordinator ended {ended:.1f} s after it was revoked")


def test_the_leader_that_is_revoked_is_replaced(group: Group) -> None:
    group.found()
    group.worker("one", "demo", fake=SLOW)
    group.all_ready(DEMO, 1)
    leader, followers = group.leader(), group.followers()
    by = followers[0]
    administer(by.url, home_of(group, by), "nodes", "revoke", called(group, leader))
    assert leader.process.wait() != 0
    until("another leads", lambda: any(member.leads() for member in followers))
    for member in followers:
        until("it answers", lambda member=member: ask(member.url, chat(DEMO, **SHORT)).status_code == 200)
    # Of two neither can go.
    command = [str(BINARY), "nodes", "revoke", called(group, by)]
    command += ["--url", followers[1].url, "--home", str(home_of(group, followers[1]))]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 8 and "majority" in refused.stderr, refused


def test_who_was_away_when_it_was_revoked_hears_it_when_it_comes_back(group: Group) -> None:
    group.found()
    agent = group.worker("one", "demo", fake=SLOW)
    group.all_ready(DEMO, 1)
    gone, by = group.followers()
    for process in (gone.process, agent):
        process.kill()
    for which in (called(group, gone), "one"):
        administer(by.url, home_of(group, by), "nodes", "revoke", which)
    for process in (gone.process, agent):
        process.start()
    for process in (gone.process, agent):
        assert process.wait() != 0
        assert "removed from the cluster" in process.said(), process.said()


def test_a_token_admits_one_machine_and_a_revoked_one_nobody(room: Room) -> None:
    room.coordinator()
    home = room.folder / "coordinator-home"
    once = administer(room.url, home, "token", "create", "--name", "lab").strip()
    room.agent("one", "demo", fake=SLOW, token=once)
    room.ready()
    replayed = room.agent("two", "demo", fake=SLOW, token=once)
    assert replayed.wait() != 0
    assert "used up" in replayed.said(), replayed.said()
    other = administer(room.url, home, "token", "create", "--ttl", "30m", "--uses", "any").strip()
    listed = administer(room.url, home, "token", "ls")
    assert "lab" in listed and "1 of 1" in listed and "kept in the coordinator" in listed, listed
    assert once not in listed and other not in listed
    administer(room.url, home, "token", "revoke", other.split(".")[2])
    late = room.agent("three", "demo", fake=SLOW, token=other)
    assert late.wait() != 0
    assert "was revoked" in late.said(), late.said()
