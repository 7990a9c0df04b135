"""Answers go on when somebody dies from outside: runtimes, agents, the way between; alone in a room, and in a crowd.

Where an answer is cut is chance here, and what cuts it is real; every token is tried in `test_cuts`. What cannot go on
ends with an error and a reset.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cluster.client import TIMEOUT_S
from cluster.cuts import BY_NAME, CHAT, COMPLETIONS, ROUTES, Asked, CutRoom, assert_broken, assert_right
from cluster.fault_proxy import FaultProxy
from cluster.faults import Wire
from cluster.harness import BINARY, Process, until
from cluster.transcript import Transcript, transcribe

PACE = "t1_s=0.01"
# A strike is aimed by a status that is some hundredths of a second old.
CROWDED_PACE = "t1_s=0.02"
CROWD = [Asked(BY_NAME[name], route, dice=9) for name in ("plain", "seeded", "n = 2", "penalties") for route in ROUTES]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[CutRoom]:
    made = CutRoom(tmp_path)
    try:
        yield made
    finally:
        made.close()


def kill_runtime(room: CutRoom, node: str = "node-0") -> None:
    os.kill(room.runtime_pid(node), signal.SIGKILL)


def once_told(characters: int, then: Callable[[], None]) -> Callable[[Transcript], None]:
    """Acts when so much of the answer is there."""
    return once(lambda seen: sum(len(told.text) for told in seen.choices.values()) >= characters, then)


def once(due: Callable[[Transcript], bool], then: Callable[[], None]) -> Callable[[Transcript], None]:
    acted: list[bool] = []

    def watch(seen: Transcript) -> None:
        if not acted and due(seen):
            acted.append(True)
            then()

    return watch


def asked_apart(room: CutRoom, asked: Asked, watch: Callable[[Transcript], None] = lambda _: None) -> Transcript:
    """By a client of its own, in any thread."""
    with httpx.Client(base_url=room.url, timeout=TIMEOUT_S) as client:
        return transcribe(client, asked.route, asked.body(), watch)


def in_a_crowd(room: CutRoom, strike: Callable[[], None]) -> list[Transcript]:
    """All of the crowd at once; strikes when half of them have begun and the first node is at work."""
    begun = threading.Semaphore(0)

    with ThreadPoolExecutor(len(CROWD)) as pool:
        tasks = [pool.submit(asked_apart, room, asked, once_told(12, begun.release)) for asked in CROWD]
        for _ in range(len(CROWD) // 2):
            assert begun.acquire(timeout=60)
        until("the first node is at work", lambda: running(room, "node-0"))
        strike()
        return [task.result() for task in tasks]


def explained(room: CutRoom, request: int) -> str:
    command = [BINARY, "explain", "request", str(request), "--url", room.url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def moved(room: CutRoom, seen: list[Transcript]) -> int:
    """Choices that took more than one attempt. When a whole node goes, attempts end without a line in the log."""
    words = [explained(room, request) for answer in seen for request in answer.requests]
    assert all(", attempt " in one for one in words), words
    return sum(", attempt 1." not in one for one in words)


def running(room: CutRoom, node: str) -> int:
    return sum(entry["running"] for entry in room.status()["nodes"] if entry["name"] == node)


@pytest.mark.parametrize("what", ["runtime", "agent"])
def test_a_crowd_of_answers_survives_a_death(room: CutRoom, what: str, figure: Callable[[str], None]) -> None:
    agents = room.fill(3, CROWDED_PACE)
    seen = in_a_crowd(room, agents[0].kill if what == "agent" else lambda: kill_runtime(room))
    for asked, answer in zip(CROWD, seen, strict=True):
        assert_right(asked, answer)
    went_on = moved(room, seen)
    assert went_on
    figure(f"{what} killed under {len(CROWD)} answers: {went_on} went on elsewhere")


def test_a_crowd_of_answers_survives_the_loss_of_the_way_to_a_node(room: CutRoom) -> None:
    """Control flows, tokens do not: the node goes on for a while with rows that are somebody else's by then."""
    room.coordinator()
    with FaultProxy(seed=3) as proxy:
        link = proxy.link(("127.0.0.2", room.cluster_port), ("127.0.0.1", room.cluster_port))
        for number in range(3):
            agent = room.agent(f"node-{number}", "demo", fake=CROWDED_PACE, start=False)
            if number == 0:
                lead_through(agent, link.address)
            agent.start()
        room.ready(nodes=3)
        seen = in_a_crowd(room, lambda: link.set(wire=Wire.UDP, blocked=True))
    for asked, answer in zip(CROWD, seen, strict=True):
        assert_right(asked, answer)
    assert moved(room, seen)


def test_a_node_whose_way_was_lost_for_a_while_is_no_charge_against_what_ran_there(room: CutRoom) -> None:
    """Two losses of live nodes under one answer; two deaths would end it."""
    room.coordinator()
    with FaultProxy(seed=5) as proxy:
        links = [
            proxy.link((f"127.0.0.{2 + number}", room.cluster_port), ("127.0.0.1", room.cluster_port))
            for number in range(2)
        ]
        for number, link in enumerate(links):
            lead_through(room.agent(f"node-{number}", "demo", fake="t1_s=0.3", start=False), link.address).start()
        room.ready(nodes=2)
        asked = Asked(BY_NAME["plain"], CHAT)

        def lose_both_in_turn() -> None:
            for _ in links:
                at = next(number for number in range(2) if running(room, f"node-{number}"))
                links[at].set(blocked=True)
                until("the answer has moved", lambda at=at: running(room, f"node-{1 - at}"), 30)
                links[at].set(blocked=False)
                room.ready(nodes=2)

        seen = room.ask(asked, once_told(2, lose_both_in_turn))
        assert_right(asked, seen)
        assert moved(room, [seen])


def lead_through(agent: Process, address: tuple[str, int]) -> Process:
    agent.command[agent.command.index("--coordinator") + 1] = "{}:{}".format(*address)
    return agent


@pytest.mark.parametrize("name", ["plain", "n = 2", "penalties"])
@pytest.mark.parametrize("what", ["runtime", "agent"])
def test_a_room_of_one_goes_on_where_it_was_cut(room: CutRoom, what: str, name: str) -> None:
    (agent,) = room.fill(1, PACE)

    def strike() -> None:
        if what == "runtime":
            kill_runtime(room)
        else:
            agent.kill()
            agent.start()

    asked = Asked(BY_NAME[name], CHAT)
    seen = room.ask(asked, once_told(20, strike))
    assert_right(asked, seen)
    if what == "runtime":
        cuts = room.cuts(seen)
        assert cuts and len(cuts) == len({cut.request for cut in cuts}), cuts
    else:
        assert moved(room, [seen])


def test_an_answer_that_was_cut_waits_for_another_node_rather_than_try_the_same_again(room: CutRoom) -> None:
    room.coordinator()
    for number in range(2):
        room.agent(f"node-{number}", "demo", fake=f"file={room.trap},t1_s=0.03", more=["--slots", "1"])
    room.ready(nodes=2)
    other, cut = (Asked(BY_NAME[name], COMPLETIONS) for name in ("plain", "seeded"))
    room.set(f"once=1,mark_token={cut.mark},fail_after=5")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(asked_apart, room, other)
        until("one node is busy", lambda: running(room, "node-0") + running(room, "node-1"))
        seen = room.ask(cut)
        assert_right(other, asking.result())
    assert_right(cut, seen)
    (first,) = room.cuts(seen)
    told = explained(room, first.request)
    names = {node["node"]: node["name"] for node in room.status()["nodes"]}
    (second,) = set(names.values()) - {names[first.node]}
    assert f"went to {second}, attempt {first.attempt + 1}" in told, told


def test_an_answer_that_cannot_go_on_ends_with_its_deadline_and_never_looks_finished(room: CutRoom) -> None:
    (agent,) = room.fill(1, PACE)
    asked = Asked(BY_NAME["seeded"], CHAT)
    room.client.headers["x-request-timeout-ms"] = "4000"
    seen = room.ask(asked, once_told(20, agent.kill))
    assert_broken(seen, "deadline_exceeded")
    assert asked.text().startswith(seen.text)


def test_a_death_behind_the_last_word_changes_nothing(room: CutRoom) -> None:
    room.fill(2, PACE)
    asked = Asked(BY_NAME["n = 2"], CHAT)

    def all_have_ended(seen: Transcript) -> bool:
        return len(seen.choices) == 2 and all(told.finish for told in seen.choices.values())

    def strike() -> None:
        for node in ("node-0", "node-1"):
            kill_runtime(room, node)

    seen = room.ask(asked, once(all_have_ended, strike))
    assert_right(asked, seen)
    assert not room.cuts(seen)
    assert_right(asked, room.ask(asked))


def test_a_client_that_hangs_up_while_its_answer_is_nowhere_ends_it(room: CutRoom) -> None:
    (agent,) = room.fill(1, PACE)
    asked = Asked(BY_NAME["plain"], CHAT)

    class LeftError(Exception):
        pass

    def leave(seen: Transcript) -> None:
        if len(seen.text) >= 20:
            agent.kill()
            until("the answer waits for a node", lambda: waiting(room))
            raise LeftError

    with pytest.raises(LeftError):
        room.ask(asked, leave)
    until("nobody waits", lambda: not waiting(room), 5)
    agent.start()
    room.ready()
    assert running(room, "node-0") == 0
    assert_right(asked, room.ask(asked))


def waiting(room: CutRoom) -> int:
    return sum(model["waiting"] for model in room.status()["models"])
