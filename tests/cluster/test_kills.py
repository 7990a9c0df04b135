"""kill -9 and SIGSTOP of every kind of process, while waiting and while streaming."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from cluster.client import Answer, chat, gather, stream
from cluster.harness import DEMO, Room, alive, until

# Ten tokens a second: slow enough that a kill lands in the middle of an answer of forty.
SLOW = "t1_s=0.1"
LONG = {"max_tokens": 40, "seed": 7}


def streaming(room: Room, then: Callable[[], None], body: dict[str, object] | None = None) -> Answer:
    """Streams one answer and does `then` after its third piece."""
    seen = 0

    def count(_: Answer) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            then()

    return asyncio.run(stream(room.url, body or chat(DEMO, **LONG), count))


def assert_never_a_clean_end(answer: Answer) -> None:
    assert len(answer.pieces) >= 3, answer
    assert not answer.clean and not answer.done, "a broken answer looked finished"
    assert answer.finish is None, answer


def killed_runtime(room: Room, node: str) -> int:
    pid = room.runtime_pid(node)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_coordinator_never_ends_a_stream_cleanly(room: Room) -> None:
    coordinator = room.coordinator()
    room.agent("one", "demo", fake=SLOW)
    room.ready()
    answer = streaming(room, coordinator.kill)
    assert_never_a_clean_end(answer)
    assert answer.broken


def test_a_coordinator_killed_while_a_request_waits_breaks_it_and_serves_it_after_the_restart(room: Room) -> None:
    coordinator = room.coordinator()
    agent = room.agent("one", "demo", fake="t1_s=0.01")
    room.ready()
    agent.kill()
    until("the node is out of rotation", lambda: not connected(room, "one"))

    async def kill_while_waiting() -> Answer:
        task = asyncio.create_task(stream(room.url, chat(DEMO, max_tokens=5)))
        await asyncio.to_thread(until, "the request waits", lambda: waiting(room))
        coordinator.kill()
        return await task

    answer = asyncio.run(kill_while_waiting())
    assert answer.broken and not answer.clean
    agent.start()
    coordinator.start()
    room.ready()
    assert gather(room.url, [chat(DEMO, max_tokens=5)])[0].clean


@pytest.mark.parametrize("what", ["runtime", "agent"])
def test_what_had_not_begun_is_answered_by_the_other_node(room: Room, what: str) -> None:
    room.coordinator()
    agents = {name: room.agent(name, "demo", fake="t1_s=0.02,prefill_tps=8") for name in ("one", "two")}
    room.ready(nodes=2)

    async def kill_while_prefilling() -> list[Answer]:
        tasks = [asyncio.create_task(stream(room.url, chat(DEMO, max_tokens=5))) for _ in range(4)]
        await asyncio.to_thread(until, "work on node one", lambda: running_on(room, "one"))
        agents["one"].kill() if what == "agent" else killed_runtime(room, "one")
        return list(await asyncio.gather(*tasks))

    answers = asyncio.run(kill_while_prefilling())
    assert [answer.clean for answer in answers] == [True] * 4, answers


def test_what_waits_for_a_dead_node_is_answered_after_its_restart(room: Room) -> None:
    room.coordinator()
    agent = room.agent("one", "demo", fake="t1_s=0.01")
    room.ready()
    agent.kill()
    until("the node is out of rotation", lambda: not connected(room, "one"))

    async def restart_while_waiting() -> Answer:
        task = asyncio.create_task(stream(room.url, chat(DEMO, max_tokens=5)))
        await asyncio.to_thread(until, "the request waits", lambda: waiting(room))
        agent.start()
        return await task

    assert asyncio.run(restart_while_waiting()).clean


def test_after_a_coordinator_restart_agents_come_back_by_themselves(room: Room) -> None:
    coordinator = room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.01")
    room.agent("two", "demo", fake="t1_s=0.01")
    room.ready(nodes=2)
    before = {node["name"]: node["node"] for node in room.status()["nodes"]}
    cluster = room.status()["cluster"]
    pids = {name: room.runtime_pid(name) for name in before}
    coordinator.kill()
    coordinator.start()
    room.ready(nodes=2)
    after = {node["name"]: node["node"] for node in room.status()["nodes"]}
    assert (after, room.status()["cluster"]) == (before, cluster), "the registry is not intact"
    assert {name: room.runtime_pid(name) for name in after} == pids, "runtimes were restarted for nothing"
    assert all(answer.clean for answer in gather(room.url, [chat(DEMO, max_tokens=5)] * 4))


def test_a_killed_runtime_is_restarted_and_its_model_loaded_again(room: Room) -> None:
    room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.01")
    room.ready()
    old = killed_runtime(room, "one")
    until("a new runtime", lambda: next((r for r in room.runtimes() if r["pid"] not in (0, old)), None))
    room.ready()
    assert gather(room.url, [chat(DEMO, max_tokens=5)])[0].clean


def test_a_stopped_runtime_is_detected_killed_and_its_work_goes_elsewhere(room: Room) -> None:
    room.coordinator()
    for name in ("one", "two"):
        room.agent(name, "demo", fake="t1_s=0.02")
    room.ready(nodes=2)
    stopped = room.runtime_pid("one")
    os.kill(stopped, signal.SIGSTOP)
    answers = gather(room.url, [chat(DEMO, max_tokens=5)] * 8)
    assert [answer.clean for answer in answers] == [True] * 8, answers
    until("the stopped runtime is killed", lambda: not alive(stopped))
    until("the node serves again with a new runtime", lambda: room.runtime_pid("one") != stopped)


@pytest.mark.parametrize("stop_first", [False, True], ids=["running", "stopped"])
def test_no_runtime_outlives_its_agent(room: Room, stop_first: bool) -> None:
    room.coordinator()
    agent = room.agent("one", "demo", fake="t1_s=0.02")
    room.ready()
    pid = room.runtime_pid("one")
    if stop_first:
        os.kill(pid, signal.SIGSTOP)
    agent.kill()
    until("the runtime is gone", lambda: not alive(pid), 30)


def test_a_signal_drains_running_answers(room: Room) -> None:
    process = room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.05")
    room.ready()
    answer = streaming(room, lambda: process.send(signal.SIGTERM), chat(DEMO, max_tokens=30))
    assert answer.clean and answer.usage and answer.usage["completion_tokens"] == 30, answer
    assert process.wait() == 0


def running_on(room: Room, name: str) -> bool:
    return any(node["running"] > 0 for node in room.status()["nodes"] if node["name"] == name)


def waiting(room: Room) -> bool:
    return any(model["waiting"] > 0 for model in room.status()["models"])


def connected(room: Room, name: str) -> bool:
    return any(node["connected"] for node in room.status()["nodes"] if node["name"] == name)
