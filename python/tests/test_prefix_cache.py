"""What is worth keeping, and when: the pure policy over a keeper that only notes what it was asked to copy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_runtime.limits import PREFIX_BLOCK_TOKENS as BLOCK
from mlx_runtime.limits import PREFIX_KEEP_TOKENS_MIN as LEAST
from mlx_runtime.prefix_cache import Found, Kept, PrefixCache, Reuse
from mlx_runtime.protocol import Generate


@dataclass
class Keeper:
    """Copies one byte for each token, unless told that it cannot."""

    asked: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    able: bool = True

    def __call__(self, row: int, tokens: int, bytes_max: int) -> Kept | None:
        self.asked.append((row, tokens))
        return Kept((row, tokens), tokens) if self.able and tokens <= bytes_max else None


class Stage:
    """A prefix cache and its keeper; rows are numbered as they come."""

    def __init__(self, reuse: Reuse = Reuse.CUT, bytes_max: int = 1 << 20) -> None:
        self.keeper = Keeper()
        self.cache = PrefixCache(bytes_max, reuse, self.keeper)
        self.count = 0

    def begin(self, ids: Sequence[int], salt: str | None = "s") -> tuple[int, Found]:
        """A row leaves the waiting room; its number and what it found."""
        self.count += 1
        self.cache.offer(Generate(self.count, tuple(ids), 9, cache_salt=salt))
        return self.count, self.cache.begin(self.count)

    def run(self, ids: Sequence[int], answer: Sequence[int] = (), salt: str | None = "s") -> Found:
        """A row's whole life."""
        row, found = self.begin(ids, salt)
        for mark in found.marks:
            self.cache.reached(row, mark)
        self.cache.prefilled(row)
        for token in answer:
            self.cache.took(row, token)
        self.cache.ended(row)
        return found

    def facts(self, *names: str) -> list[Any]:
        """Some of the counts."""
        facts = self.cache.facts()
        return [facts[name] for name in names]


def test_a_prompt_is_kept_once_computed_but_for_the_part_of_its_last_block() -> None:
    stage = Stage()
    row, found = stage.begin(range(500))
    assert (found, stage.keeper.asked) == (Found(), [])
    stage.cache.prefilled(row)
    assert stage.keeper.asked == [(1, 448)]
    assert stage.run(range(500)).cached == 448


def test_one_token_is_always_left_to_feed() -> None:
    stage = Stage()
    stage.run(range(513), range(1000, 1200))
    assert stage.run(range(512)).cached == 448
    assert stage.run(range(513)).cached == 512


def test_the_answer_is_kept_too_if_enough_of_it_is_new() -> None:
    stage = Stage()
    stage.run(range(257), range(257, 257 + LEAST - 2))
    assert stage.keeper.asked == [(1, 256)]
    stage.run(range(257), range(257, 257 + LEAST - 1))
    assert stage.keeper.asked == [(1, 256), (2, 256 + LEAST)]
    assert stage.facts("entries", "bytes") == [1, 256 + LEAST]
    assert stage.run(range(1000)).cached == 256 + LEAST


def test_a_sequence_with_little_that_is_new_is_not_copied() -> None:
    stage = Stage()
    stage.run(range(LEAST - 1))
    assert stage.keeper.asked == []
    stage.run(range(LEAST))
    assert stage.keeper.asked == [(2, LEAST)]
    assert stage.run(range(LEAST + BLOCK + 1)).cached == LEAST
    assert stage.keeper.asked == [(2, LEAST)]


def test_rows_of_other_salts_and_of_none_share_nothing() -> None:
    stage = Stage()
    stage.run(range(500))
    assert stage.run(range(500), salt="t").cached == 0
    asked = list(stage.keeper.asked)
    assert stage.run(range(500), range(500), salt=None).cached == 0
    assert stage.keeper.asked == asked
    assert stage.facts("hits", "misses", "query_tokens") == [0, 2, 1000]


def test_the_counts_are_of_the_rows_with_a_salt_that_began() -> None:
    stage = Stage()
    stage.run(range(500))
    stage.run(range(600))
    stage.run([7] * 10)
    assert stage.cache.facts() == {
        "entries": 1,
        "bytes": 576,
        "hits": 1,
        "misses": 2,
        "hit_tokens": 448,
        "query_tokens": 1110,
    }


def test_an_offer_tells_what_would_be_found_and_counts_nothing() -> None:
    stage = Stage()
    stage.run(range(500))
    assert stage.cache.offer(Generate(7, tuple(range(450)), 9, cache_salt="s")) == 448
    assert stage.facts("hits", "misses") == [0, 1]
    assert stage.cache.begin(7) == Found(448, (1, 448))


@pytest.mark.parametrize(("reuse", "bytes_max"), [(Reuse.NONE, 1 << 20), (Reuse.CUT, 0)])
def test_switched_off_nothing_is_found_kept_or_counted(reuse: Reuse, bytes_max: int) -> None:
    stage = Stage(reuse, bytes_max)
    for _ in range(2):
        assert stage.run(range(500), range(500)) == Found()
    assert stage.keeper.asked == []
    assert set(stage.cache.facts().values()) == {0}


def test_what_the_backend_cannot_copy_is_not_there() -> None:
    stage = Stage()
    stage.keeper.able = False
    stage.run(range(500))
    assert stage.run(range(500)).cached == 0
    stage = Stage(bytes_max=447)
    stage.run(range(500))
    assert stage.facts("entries", "bytes") == [0, 0]


def test_a_row_that_was_forgotten_leaves_nothing() -> None:
    stage = Stage()
    row, _ = stage.begin(range(500))
    stage.cache.forget(row)
    stage.cache.prefilled(row)
    stage.cache.ended(row)
    assert stage.keeper.asked == []


def test_a_restart_drops_copies_and_running_rows_and_keeps_those_that_wait() -> None:
    stage = Stage()
    stage.run(range(500))
    running, _ = stage.begin(range(500))
    stage.cache.offer(Generate(99, tuple(range(500)), 9, cache_salt="s"))
    stage.cache.restart({99})
    assert stage.facts("entries", "bytes", "hits", "misses") == [0, 0, 1, 1]
    stage.cache.ended(running)
    assert stage.cache.begin(99) == Found()
    stage.cache.prefilled(99)
    assert stage.keeper.asked == [(1, 448), (99, 448)]


def test_without_cuts_copies_are_made_at_the_last_block_and_where_prompts_part() -> None:
    stage = Stage(Reuse.WHOLE)
    shared = list(range(1000))
    assert stage.run([*shared, *[1] * 100], range(100)).marks == (1088,)
    assert stage.run([*shared, *[2] * 200]) == Found(0, None, (960, 1152))
    assert stage.run([*shared, *[3] * 300]) == Found(960, (2, 960), (1280,))
    assert stage.run([*shared, *[1] * 100]).cached == 1088
    assert stage.keeper.asked == [(1, 1088), (2, 960), (2, 1152), (3, 1280)]


def test_without_cuts_a_mark_that_adds_little_is_left_out() -> None:
    stage = Stage(Reuse.WHOLE)
    stage.run(range(2000))
    assert stage.run([*range(960), *[1] * 100]).marks == (960,)
    assert stage.run(range(LEAST)).marks == ()


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(1, 70), st.sampled_from("st")),
        max_size=12,
    ),
    st.sampled_from([Reuse.CUT, Reuse.WHOLE]),
    st.integers(100, 2000),
)
def test_what_a_row_finds_is_always_the_beginning_of_a_row_with_its_salt(
    rows: list[tuple[list[int], int, str]], reuse: Reuse, bytes_max: int
) -> None:
    stage = Stage(reuse, bytes_max)
    seen: dict[int, tuple[list[int], str]] = {}
    for letters, tail, salt in rows:
        ids = [letter for letter in letters for _ in range(2 * BLOCK)] + [9] * tail
        answer = [8] * tail
        found = stage.run(ids, answer, salt)
        seen[stage.count] = [*ids, *answer], salt
        assert found.cached < len(ids)
        if found.cached:
            source, tokens = cast(tuple[int, int], found.held)
            assert seen[source][1] == salt
            assert seen[source][0][: found.cached] == ids[: found.cached]
            assert found.cached <= tokens
            assert reuse is Reuse.CUT or found.cached == tokens
        (size,) = stage.facts("bytes")
        assert size <= bytes_max
