"""An answer that is cut goes on: at every token, for every shape of request, and no client can tell.

What goes wrong is the runtimes' doing here, at an exact token; deaths from outside and real MLX are in `test_resuming`.
Each answer is held against two others: that of the same request left alone, and that which was computed beforehand.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.cuts import (
    BY_NAME,
    CHAT,
    COMPLETIONS,
    ROUTES,
    TOKENS,
    Asked,
    CutRoom,
    Shape,
    assert_broken,
    assert_right,
)
from cluster.harness import DEMO
from cluster.reference import AMONG, UNHEARD, text_of

AGENTS = 5
# A runtime that has died some times comes back later each time: two deaths in a sweep, all other cuts are failed calls.
DEATHS = ["exit_after", "abort_after", "truncate_after", "garbage_after"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutRoom]:
    yield from filled(tmp_path_factory, "plain")


@pytest.fixture(scope="module")
def spelling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutRoom]:
    yield from filled(tmp_path_factory, "spelling", "spelled=1")


def filled(folders: pytest.TempPathFactory, name: str, knobs: str = "") -> Iterator[CutRoom]:
    room = CutRoom(folders.mktemp(name))
    try:
        room.fill(AGENTS, knobs)
        yield room
    finally:
        room.close()


@pytest.fixture
def at(request: pytest.FixtureRequest) -> Callable[[Shape], CutRoom]:
    """The room for a shape."""
    return lambda shape: request.getfixturevalue("spelling" if shape.spelled else "plain")


def cutter(asked: Asked, position: int) -> str:
    """The fault that cuts after so many tokens."""
    sweep = 2 * asked.shape.number + ROUTES.index(asked.route)
    if position == 0:
        return f"fail_token={asked.mark}"
    if position == TOKENS:
        return "lose_end=1"
    deadly = position % 32 == 1 + 5 * sweep % 31
    return f"{DEATHS[(sweep + position // 32) % 4] if deadly else 'fail_after'}={position}"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", BY_NAME)
def test_an_answer_cut_at_any_token_is_told_whole(
    at: Callable[[Shape], CutRoom], name: str, route: str, figure: Callable[[str], None]
) -> None:
    asked = Asked(BY_NAME[name], route)
    room, began = at(asked.shape), time.monotonic()
    whole = room.ask(asked)
    assert_right(asked, whole)
    kinds: Counter[str] = Counter()
    for position in asked.shape.cuts:
        fault = cutter(asked, position)
        room.set(f"once=1,mark_token={asked.mark},{fault}")
        seen = room.ask(asked)
        assert room.sprung(), f"{fault} never came"
        assert seen == whole, (fault, seen, whole)
        assert len(seen.heads) == 1
        # Both of two choices may have been where it failed; behind the last token there is nothing to go on with.
        cuts = room.cuts(seen)
        assert len({cut.request for cut in cuts}) == len(cuts), (fault, cuts)
        assert bool(cuts) == (position < TOKENS), (fault, cuts)
        kinds[fault.split("=")[0]] += 1
        room.mend()
    figure(f"{name} on {route}: cut {kinds.total()} times, {dict(kinds)}, {time.monotonic() - began:.1f} s")


def test_three_cuts_are_survived_each_on_another_node(plain: CutRoom) -> None:
    asked = Asked(BY_NAME["seeded"], CHAT, dice=2)
    plain.set(f"mark_token={asked.mark},fail_after=17")
    seen = plain.ask(asked)
    plain.sprung()
    assert_right(asked, seen)
    cuts = plain.cuts(seen)
    assert len(cuts) == len({cut.node for cut in cuts}) == 3, cuts
    plain.mend()


@pytest.mark.parametrize("route", ROUTES)
def test_a_fourth_cut_breaks_the_answer_and_it_never_looks_finished(plain: CutRoom, route: str) -> None:
    asked = Asked(BY_NAME["seeded"], route, dice=3)
    plain.set(f"mark_token={asked.mark},fail_after=15")
    seen = plain.ask(asked)
    plain.sprung()
    assert_broken(seen, "stream_lost")
    assert seen.text == text_of(asked.tokens()[:60])
    cuts = plain.cuts(seen)
    assert len(cuts) == len({cut.node for cut in cuts}) == 4, cuts
    plain.mend()


def test_an_answer_that_kills_two_runtimes_gets_no_third(plain: CutRoom) -> None:
    asked = Asked(BY_NAME["plain"], COMPLETIONS, dice=4)
    plain.set(f"mark_token={asked.mark},exit_after=9")
    seen = plain.ask(asked)
    plain.sprung()
    assert_broken(seen, "request_quarantined")
    assert seen.text == text_of(asked.tokens()[:18])
    assert len({cut.node for cut in plain.cuts(seen)}) == 2
    plain.mend()


def test_a_choice_that_has_ended_is_not_told_again_when_the_other_is_cut(plain: CutRoom) -> None:
    asked = Asked(BY_NAME["n = 2"], CHAT, dice=5)
    first, second = asked.tokens(0), asked.tokens(1)
    stop = text_of(first[18:21])
    assert stop not in text_of(first[:20]) + text_of(second)
    # Slow enough that the first choice's row is cancelled, some forty steps before the cut.
    plain.set(f"once=1,t1_s=0.02,mark_token={asked.mark},fail_after=60")
    seen = plain.ask(asked, stop=[stop])
    assert plain.sprung()
    assert not seen.faults and seen.done and not seen.broken, seen
    assert seen.choices[0].text == text_of(first[:18]) and seen.choices[0].finish == "stop"
    assert seen.choices[1].text == text_of(second) and seen.choices[1].finish == "length"
    assert seen.usage and seen.usage["completion_tokens"] == 21 + TOKENS, seen.usage
    assert len(plain.cuts(seen)) == 1
    plain.mend()


@pytest.mark.parametrize("name", BY_NAME)
def test_an_answer_that_is_not_streamed_is_the_same_when_it_was_cut(at: Callable[[Shape], CutRoom], name: str) -> None:
    asked = Asked(BY_NAME[name], CHAT, dice=6)
    room = at(asked.shape)

    def document() -> object:
        answer = room.client.post(CHAT, json=asked.body()).raise_for_status().json()
        return {key: value for key, value in answer.items() if key not in {"id", "created"}}

    whole = document()
    for position in (1, 31, 63):
        room.set(f"once=1,mark_token={asked.mark},fail_after={position}")
        assert document() == whole and room.sprung()
        room.mend()


def test_an_answer_cut_twice_costs_its_client_what_it_would_have_cost_uncut(plain: CutRoom) -> None:
    """Replayed tokens are neither prompt nor answer, and what a cache had of them is not told."""
    ids = (*random.Random(8).choices(AMONG, k=400), UNHEARD[0])
    body = {"model": DEMO, "prompt": list(ids), "max_tokens": 200, "temperature": 0}
    told, times = list[dict[str, Any]](), list[int]()
    for cut in ("", "fail_after=90", "fail_after=150", "fail_after=70"):
        plain.set(f"mark_token={UNHEARD[0]},{cut}")
        response = plain.client.post(COMPLETIONS, json=body).raise_for_status()
        told.append(response.json())
        times.append(len(plain.cuts_of({int(response.headers["x-mlx-request"])})))
        plain.sprung()
        plain.mend()
    assert times == [0, 2, 1, 2]
    usages = [one["usage"] for one in told]
    assert {(usage["prompt_tokens"], usage["completion_tokens"]) for usage in usages} == {(401, 200)}, usages
    assert all(usage["prompt_tokens_details"]["cached_tokens"] <= 401 for usage in usages), usages
    assert len({one["choices"][0]["text"] for one in told}) == 1
