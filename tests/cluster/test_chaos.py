"""The chaos runner: its schedule is the seed's, it can fail, and a short campaign finds nothing."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cluster.chaos import CANARY, Campaign, drawable, rounds
from cluster.chaos_group_faults import OF_A_GROUP
from cluster.chaos_judge import CUTTING_EVERYWHERE, Absence, Gap, Outcome, Struck, report, table, wrongs
from cluster.chaos_scene import FAULTS
from cluster.reference import UNHEARD, drawn
from cluster.wiring import missing
from cluster.witness import Manner, Record, Verdict

HONEST = drawable(coordinators=3)
# What is over soon, for a campaign in a minute.
BRIEF = [name for name in drawable(coordinators=1) if FAULTS[name].hold_s <= 5]
needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or bool(missing()), reason="chaos reads /proc and needs mount namespaces (Linux)"
)


def campaign(folder: Path, names: list[str], seconds: float, rounds_max: int | None = None) -> Outcome:
    room = folder / "room"
    room.mkdir()
    made = Campaign(room, 2, 7, names, folder / "history.jsonl")
    try:
        return made.run(seconds, rate=12, rounds_max=rounds_max)
    finally:
        made.close()


def test_the_schedule_is_a_function_of_the_seed() -> None:
    def first(seed: int) -> list[object]:
        return list(itertools.islice(rounds(seed, 4, HONEST), 200))

    assert first(7) == first(7) != first(8)


def test_every_fault_comes_before_any_comes_again() -> None:
    struck = [strike.fault for one in itertools.islice(rounds(7, 4, HONEST), 300) for strike in one.strikes]
    for start in range(0, 3 * len(HONEST), len(HONEST)):
        assert sorted(struck[start : start + len(HONEST)]) == sorted(HONEST)


def test_two_faults_at_once_are_at_two_agents_and_none_is_of_the_room() -> None:
    pairs = [one.strikes for one in itertools.islice(rounds(7, 4, HONEST), 300) if len(one.strikes) > 1]
    assert len(pairs) > 30
    for first, second in pairs:
        assert first.agent != second.agent
        assert not FAULTS[first.fault].of_the_room and not FAULTS[second.fault].of_the_room


def test_no_question_of_the_load_is_poison() -> None:
    asked = [drawn(random.Random(seed), (1, 4), canary=CANARY) for seed in range(200)]
    assert not {token for one in asked for token in one.prompt_ids()} & set(UNHEARD[-2:])
    assert sum(isinstance(one.prompt, str) and one.prompt.startswith(CANARY) for one in asked) > 50


def test_an_answer_may_break_only_for_a_reason() -> None:
    def broken(code: str, sent_s: float = 10.0, ended_s: float = 20.0, verdict: Verdict = Verdict.BROKEN) -> Record:
        return Record(1, sent_s, 11.0, ended_s, verdict, code, "", "1", Manner.PLAIN, 9, 9, 5, None, "req", "7")

    def found(record: Record, *met: str, gap: Gap | None = None) -> bool:
        struck = [Struck(fault, "mac-1", 12.0, 13.0) for fault in met]
        return bool(wrongs(Outcome(struck=struck, records=[record], gaps=[gap] if gap else [])))

    assert found(broken("stream_lost")) and found(broken("stream_lost"), "kill -9 agent")
    assert found(broken("reset"), "kill -9 agent", "kill -9 runtime"), "a gateway that lives says what is wrong"
    assert not found(broken("stream_lost"), "kill -9 agent", "kill -9 runtime")
    assert not found(broken("stream_lost"), "kill -9 all agents") and found(broken("stream_lost"), "CPU hog")
    assert set(FAULTS) > CUTTING_EVERYWHERE
    assert found(broken("stream_lost", sent_s=14.0), "kill -9 agent", "kill -9 runtime"), "it came afterwards"
    assert not found(broken("reset"), gap=Gap("", 19.0, 25.0))
    assert found(broken("reset"), gap=Gap("", 21.0, 25.0))
    assert found(broken("reset"), gap=Gap("another", 19.0, 25.0)), "its own gateway was there"
    assert not found(broken("deadline_exceeded", ended_s=55.0)) and found(broken("deadline_exceeded", ended_s=50.0))
    drained = Gap("", 19.0, 25.0, Absence.DRAINED)
    assert found(broken("reset"), gap=drained), "what runs where a gateway is told to end, ends well"
    assert not found(replace(broken("reset"), service_id=""), gap=drained), "it was never taken in"
    started = Gap("", 1.0, 5.0)
    assert not found(replace(broken("unreachable"), verdict=Verdict.REFUSED), gap=started), "it does not listen yet"
    assert found(broken("reset"), gap=started) and found(broken("unreachable", sent_s=16.0), gap=started)
    refused = partial(broken, verdict=Verdict.REFUSED)
    assert not found(refused("unreachable"), gap=drained) and found(refused("unreachable"))
    assert found(refused("node_lost")) and found(refused("node_lost"), "kill -9 agent")
    assert not found(refused("node_lost"), "kill -9 agent", "kill -9 runtime")
    assert found(refused("queue_full")) and not found(refused("queue_full"), "kill -9 agent")
    assert found(broken("queue_full"), "kill -9 agent") and found(refused("internal_error"), "kill -9 agent")


def test_who_ends_by_itself_and_what_never_strikes_is_told() -> None:
    assert wrongs(Outcome(unexcused=["coordinator-1 with status 101 during CPU hog"]))
    struck = [Struck("CPU hog", "mac-1", 1.0, 2.0)] * 20
    assert not wrongs(Outcome(struck=struck, missed=["it strikes"] * 3))
    assert wrongs(Outcome(struck=struck, missed=["it strikes"] * 4))


def test_a_fault_that_leaves_a_group_all_it_needs_may_not_stop_new_work() -> None:
    def asked(sent_s: float, first_s: float) -> Record:
        return Record(1, sent_s, first_s, 99.0, Verdict.WHOLE, "", "", "1", Manner.PLAIN, 9, 9, 5, None, "", "7", "two")

    def found(fault: str, *first_s: float, gap: Gap | None = None) -> bool:
        records = [asked(11.0 + number / 9, at) for number, at in enumerate(first_s)]
        struck = [Struck(fault, "mac-1", 10.0, 18.0)]
        return bool(wrongs(Outcome(struck=struck, records=records, gaps=[gap] if gap else [])))

    waiting = [18.5] * 9
    slow = "delay 20 ms between coordinators"
    assert found(slow, *waiting) and found(slow, *waiting, 13.0) and not found(slow, *waiting, 14.0)
    assert not found("kill -9 two coordinators", *waiting), "a minority may wait"
    assert not found(slow, *waiting[:2]), "hardly anybody waited"
    assert not found(slow, *waiting, gap=Gap("two", 10.0, 18.0)), "who asked had no gateway"
    refused = [
        replace(asked(11.0 + at / 9, 0.0), verdict=Verdict.REFUSED, first_s=None, ended_s=12.0) for at in range(9)
    ]
    outcome = Outcome(struck=[Struck(slow, "mac-1", 10.0, 18.0)], records=refused)
    assert any("nothing began" in one for one in wrongs(outcome)), "to refuse everybody is not to serve"


def test_faults_of_a_group_are_drawn_in_a_group_only() -> None:
    assert set(drawable(coordinators=3)) - set(drawable(coordinators=1)) == OF_A_GROUP


@needs_linux
def test_a_runtime_that_lies_is_seen_by_the_campaign(tmp_path: Path) -> None:
    """A judge that never finds anybody guilty proves nothing."""
    outcome = campaign(tmp_path, ["runtime sends wrong tokens"], 60, rounds_max=1)
    found = wrongs(outcome)
    assert found and all("WRONG" in one for one in found), report(outcome)


@needs_linux
def test_a_short_campaign_loses_nothing(tmp_path: Path, figure: Callable[[str], None]) -> None:
    outcome = campaign(tmp_path, BRIEF, 30)
    assert not wrongs(outcome), report(outcome)
    whole = sum(record.verdict is Verdict.WHOLE for record in outcome.records)
    assert len(outcome.struck) >= 5 and whole >= 50, table(outcome)
    figure(
        f"chaos: {len(outcome.struck)} faults, {len(outcome.records)} requests, {whole} whole, none lost or wrong; "
        f"full service {outcome.full_service_s:.1f} s after the last"
    )
