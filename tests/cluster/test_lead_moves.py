"""The lead belongs where the agents are heard: a leader that is parted from them gives it away before anybody waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.client import ask, chat
from cluster.group import Coordinator, Group
from cluster.harness import DEMO, until
from cluster.wiring import Wiring, missing

pytestmark = pytest.mark.skipif(sys.platform != "linux" or bool(missing()), reason="mount namespaces need Linux")

AGENTS = ("one", "two")
SLOTS = 2
SHORT = {"max_tokens": 4, "seed": 7}


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[Group]:
    made = Group(tmp_path, wiring=Wiring(tmp_path, seed=1))
    try:
        made.found()
        for name in AGENTS:
            agent = made.prepared(name, "demo", fake="")
            agent.command += ["--slots", str(SLOTS)]
            agent.start()
        made.all_ready(DEMO, len(AGENTS))
        yield made
    finally:
        made.close()
        assert made.wiring
        made.wiring.close()


def ways(group: Group) -> Wiring:
    assert group.wiring
    return group.wiring


def lead_has_left(group: Group, former: Coordinator) -> bool:
    return not former.leads() and any(member.leads() for member in group.members)


def in_line(leader: Coordinator) -> int:
    status = leader.status()
    return sum(model["waiting"] + model["running"] for model in status["models"]) if status else 0


def test_a_leader_that_no_agent_reaches_hands_over_and_nobody_waits_for_it(
    wired: Group, figure: Callable[[str], None]
) -> None:
    former = wired.leader()
    gateway = next(member for member in wired.members if member is not former)
    ways(wired).partition(former.name, AGENTS)
    cut, longest = time.monotonic(), 0.0
    while not lead_has_left(wired, former):
        begun = time.monotonic()
        assert ask(gateway.url, chat(DEMO, **SHORT)).status_code == 200
        longest = max(longest, time.monotonic() - begun)
        assert time.monotonic() - cut < 60, "the lead stays where no agent is heard"
    after = time.monotonic() - cut
    figure(f"a leader that hears no agent: handed over after {after:.1f} s; longest answer {longest:.2f} s")
    assert ask(gateway.url, chat(DEMO, **SHORT)).status_code == 200
    # Whoever asks it is served too, when the cable is back.
    ways(wired).heal(former.name, AGENTS)
    until("the former leader reaches them again", lambda: former.is_ready(DEMO, len(AGENTS)))
    assert ask(former.url, chat(DEMO, **SHORT)).status_code == 200


def test_a_gateway_that_no_agent_reaches_holds_up_nobody_elses_clients(wired: Group) -> None:
    former = wired.leader()
    gateway = next(member for member in wired.members if member is not former)
    ways(wired).partition(former.name, AGENTS)
    until("the lead goes where they are heard", lambda: lead_has_left(wired, former))
    # More than the agents have slots, and each has waited for longer than whoever comes later.
    many = 4 * SLOTS
    with ThreadPoolExecutor(many) as pool:
        stuck = [pool.submit(ask, former.url, chat(DEMO, **SHORT)) for _ in range(many)]
        until("the leader has them in its line", lambda: in_line(wired.leader()) >= many)
        for _ in range(20):
            assert ask(gateway.url, chat(DEMO, **SHORT)).status_code == 200
        assert not any(one.done() for one in stuck)
        ways(wired).heal(former.name, AGENTS)
        assert [one.result().status_code for one in stuck] == [200] * len(stuck)


def test_a_leader_that_hears_fewer_hands_over(wired: Group) -> None:
    former = wired.leader()
    ways(wired).partition(former.name, AGENTS[:1])
    until("the lead goes where both are heard", lambda: lead_has_left(wired, former))
    leader = wired.leader()
    assert leader.is_ready(DEMO, len(AGENTS))
    assert ask(leader.url, chat(DEMO, **SHORT)).status_code == 200
