"""The simulator is told the constants of three nodes and the stream they serve, and says what real processes then do.

How near the latencies are is a figure here, because a busy machine spoils it; `benches/prediction` is strict about it.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.harness import Room
from cluster.prediction import at_load, measure, predict
from cluster.three_speeds import NAMES, PLAN, STREAM, start

LOAD = 0.7
# A node's share of some sixty requests: three standard deviations of a fair draw.
NEAR = 0.2


def test_three_nodes_get_the_shares_that_the_simulator_predicts(room: Room, figure: Callable[[str], None]) -> None:
    asked = at_load(room.folder, PLAN, STREAM, LOAD, seed=1)
    predicted, load = predict(room.folder, PLAN, asked)
    start(room)
    measured = measure(room, asked, NAMES)
    for one in (predicted, measured):
        assert one.answered == one.requests == len(asked), one
        assert one.shares == sorted(one.shares, reverse=True), "a slower node got more"
        assert min(one.shares) > 0, "a node stood idle"
    pairs = zip(measured.shares, predicted.shares, strict=True)
    assert all(abs(got - expected) < NEAR for got, expected in pairs), (measured, predicted)
    for name in ("mean", "p50", "p95"):
        got, expected = measured.ttft_s[name], predicted.ttft_s[name]
        figure(f"TTFT at load {load:.2f}, {name}: {got:.3f} s, predicted {expected:.3f} s ({got / expected:.2f} x)")
