"""Five minutes of chaos over three coordinators: faults of every kind, by a seed, under load."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.chaos import Campaign
from cluster.chaos_judge import report, table, wrongs
from cluster.wiring import missing
from cluster.witness import Verdict

# Of its first rounds, eight are of the leader, and disks, processes, wires and machines come before any of them again.
SEED = 8


@pytest.mark.skipif(
    sys.platform != "linux" or bool(missing()), reason="chaos reads /proc and needs mount namespaces (Linux)"
)
@pytest.mark.timeout(900)
def test_five_minutes_of_faults_lose_nothing(tmp_path: Path, figure: Callable[[str], None]) -> None:
    room = tmp_path / "room"
    room.mkdir()
    campaign = Campaign(room, 3, SEED, (), tmp_path / "history.jsonl", 3)
    try:
        outcome = campaign.run(300, rate=3)
    finally:
        campaign.close()
    assert not wrongs(outcome), report(outcome)
    whole = sum(record.verdict is Verdict.WHOLE for record in outcome.records)
    assert len(outcome.struck) >= 20 and whole >= max(200, 0.8 * len(outcome.records)), table(outcome)
    figure(
        f"five minutes of chaos: {len(outcome.struck)} faults, {len(outcome.records)} requests, {whole} whole, none "
        f"lost or wrong; full service {outcome.full_service_s:.1f} s after the last"
    )
