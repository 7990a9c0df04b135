"""A Mac that slept registers anew at once, and does not mistake a pause for a sleep."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from cluster.client import ask, chat
from cluster.harness import DEMO, Room, until
from cluster.sleeping import Sleeper

SLEPT = "this Mac slept"
# Longer than what two looks at two clocks may differ by; shorter than what makes a coordinator give a node up.
NAP_S = 1.2


def test_a_mac_that_slept_registers_anew_although_nobody_missed_it(room: Room, tmp_path: Path) -> None:
    sleeper = Sleeper(tmp_path)
    coordinator = room.coordinator()
    agent = room.agent("one", "demo", fake="", start=False)
    agent.environment |= sleeper.environment
    agent.start()
    room.ready()
    runtime = room.runtime_pid("one")
    registered = coordinator.said().count("agent session opened")
    assert registered >= 1, coordinator.said()

    # It stands still for as long, and its clocks go on: no sleep.
    agent.send(signal.SIGSTOP)
    time.sleep(NAP_S)
    agent.send(signal.SIGCONT)
    room.ready()
    assert ask(room.url, chat(DEMO, max_tokens=2)).status_code == 200
    assert SLEPT not in agent.said()

    sleeper.sleep(agent.pid, NAP_S)
    until("the agent says that it slept", lambda: SLEPT in agent.said())
    until("it registers anew", lambda: coordinator.said().count("agent session opened") > registered)
    room.ready()
    assert ask(room.url, chat(DEMO, max_tokens=2)).status_code == 200
    assert room.runtime_pid("one") == runtime, "its runtime slept as well, and woke"
    assert agent.said().count(SLEPT) == 1, "one sleep, told once"
