"""The pure batch: admission, the prefill budget, counts; the rules as examples and as laws."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_runtime.batch import Batch, Chunk, Finish, Row, State
from mlx_runtime.errors import Code
from mlx_runtime.limits import PREFILL_LONG_ROWS_MAX, PREFILL_ROWS_MAX, WAITING_ROWS_MAX


def batch_of(*lengths: int, max_rows: int = 32, prefill_chunk: int = 100) -> Batch:
    """A batch with queued prompts of these lengths, numbered from 0."""
    batch = Batch(max_rows, prefill_chunk)
    for number, length in enumerate(lengths):
        assert batch.offer(Row(number, length, 10)) is None
    return batch


def admitted(batch: Batch) -> list[int]:
    """The rows one admission lets in."""
    return [row.row for row in batch.admit()]


def test_the_waiting_room_holds_256_rows_and_then_is_busy() -> None:
    batch = batch_of(*[5] * WAITING_ROWS_MAX)
    assert batch.offer(Row(1000, 5, 1)) is Code.BUSY
    batch.admit()
    assert batch.offer(Row(1000, 5, 1)) is None


def test_a_number_that_lives_cannot_start_again_until_it_ends() -> None:
    batch = batch_of(5)
    assert batch.offer(Row(0, 5, 1)) is Code.DUPLICATE_ROW
    assert batch.end(0) is not None
    assert batch.offer(Row(0, 5, 1)) is None


def test_no_more_rows_than_asked_hold_cache() -> None:
    batch = batch_of(1, 1, 1, 1, max_rows=3)
    assert admitted(batch) == [0, 1, 2]
    assert batch.promote() == [0, 1, 2]
    assert admitted(batch) == []
    batch.end(1)
    assert admitted(batch) == [3]


def test_at_most_eight_rows_prefill_and_at_most_four_of_them_are_long() -> None:
    batch = batch_of(*[500] * 6, *[50] * 6)
    assert admitted(batch) == [0, 1, 2, 3, 6, 7, 8, 9]


def test_the_oldest_long_prompt_takes_the_next_place_of_a_long_one() -> None:
    batch = batch_of(*[500] * 6, 50)
    assert admitted(batch) == [0, 1, 2, 3, 6]
    batch.end(2)
    assert admitted(batch) == [4]


def test_the_budget_is_shared_and_what_short_prompts_leave_is_not_computed_as_padding() -> None:
    batch = batch_of(401, 11, 401, 401)
    batch.admit()
    chunks = batch.plan()
    assert chunks == [Chunk(0, 0, 25), Chunk(1, 0, 10), Chunk(2, 0, 25), Chunk(3, 0, 25)]
    batch.advance(chunks, 0.5)
    assert batch.promote() == [1]
    assert batch.plan() == [Chunk(0, 25, 33), Chunk(2, 25, 33), Chunk(3, 25, 33)]


def test_the_time_of_a_call_is_told_of_its_rows_in_equal_parts() -> None:
    batch = batch_of(26, 11, 401, 401)
    rows = batch.admit()
    batch.advance(batch.plan(), 0.5)
    batch.promote()
    batch.advance(batch.plan(), 0.5)
    assert [row.closing()["prefill_s"] for row in rows] == [0.125, 0.125, 0.375, 0.375]


def test_the_last_prompt_token_is_left_to_the_decode_step() -> None:
    batch = batch_of(1, 2)
    batch.admit()
    assert batch.plan() == [Chunk(1, 0, 1)]
    assert batch.promote() == [0]
    batch.advance([Chunk(1, 0, 1)], 0.0)
    assert batch.promote() == [1]
    assert batch.kv_tokens == 3


def test_cached_tokens_are_neither_computed_nor_take_a_share_of_the_budget() -> None:
    batch = batch_of(401, 401)
    first, second = batch.admit()
    first.begin(384, ())
    second.begin(0, ())
    chunks = batch.plan()
    assert chunks == [Chunk(0, 384, 16), Chunk(1, 0, 50)]
    assert batch.kv_tokens == 384
    batch.advance(chunks, 0.0)
    assert batch.promote() == [0]
    assert first.closing()["cached_tokens"] == 384


def test_a_prompt_cached_to_its_end_goes_straight_to_decoding() -> None:
    batch = batch_of(129)
    (row,) = batch.admit()
    row.begin(128, ())
    assert batch.plan() == []
    assert batch.promote() == [0]


def test_a_long_prompt_that_is_expected_to_be_cached_is_no_long_one() -> None:
    batch = batch_of(*[500] * 6)
    batch.rows()[5].cached = 448
    assert admitted(batch) == [0, 1, 2, 3, 5]
    assert batch.rows()[4].closing()["cached_tokens"] == 0


def test_prefill_stops_at_each_mark() -> None:
    batch = batch_of(301, 301)
    marked, free = batch.admit()
    marked.begin(0, (64, 192, 256))
    free.begin(0, ())
    seen: list[int] = []
    while marked.prefill_left > 0:
        chunks = batch.plan()
        seen += [chunk.count for chunk in chunks if chunk.row == 0]
        batch.advance(chunks, 0.0)
    assert seen == [50, 14, 50, 50, 28, 50, 14, 44]
    assert free.prefill_left == 0


def test_a_new_chunk_counts_from_the_next_plan_on() -> None:
    batch = batch_of(1000)
    batch.admit()
    batch.advance(batch.plan(), 0.0)
    batch.prefill_chunk = 7
    assert batch.plan() == [Chunk(0, 100, 7)]


@pytest.mark.parametrize(
    ("token", "generated", "finish"),
    [(7, 1, None), (9, 1, Finish.STOP), (7, 3, Finish.LENGTH), (9, 3, Finish.STOP)],
)
def test_a_stop_id_wins_over_the_length(token: int, generated: int, finish: Finish | None) -> None:
    row = Row(0, 5, 3, frozenset({9}), generated=generated - 1, state=State.DECODE)
    assert Batch(1, 1).took(row, token) is finish
    assert row.generated == generated


@pytest.mark.parametrize(("cached", "told"), [(64, 64), (128, 100)])
def test_replayed_tokens_are_computed_like_a_prompt_and_told_as_none(cached: int, told: int) -> None:
    batch = Batch(1, 1000)
    batch.offer(Row(0, 140, 2, replayed=40))
    (row,) = batch.admit()
    row.begin(cached, ())
    assert batch.plan() == [Chunk(0, cached, 139 - cached)]
    assert (batch.took(row, 7), batch.took(row, 7)) == (None, Finish.LENGTH)
    closing = row.closing()
    assert (closing["generated"], closing["prompt_tokens"], closing["cached_tokens"]) == (2, 100, told)


def test_ending_an_unknown_row_is_nothing() -> None:
    assert batch_of(5).end(99) is None


@dataclass
class Run:
    """A batch driven to its end by a script of numbers; checks the laws after every step."""

    batch: Batch
    lengths: list[int]
    max_tokens: int = 3
    cached: int = 0
    done: dict[int, int] = field(default_factory=dict[int, int])
    computed: dict[int, int] = field(default_factory=dict[int, int])

    def step(self, cancel: int | None = None) -> None:
        """One step as the loop runs it."""
        if cancel is not None and (row := self.batch.end(cancel)):
            self.done[row.row] = row.generated
        for row in self.batch.admit():
            row.begin(row.cached, (self.cached + 40, self.cached + 64))
            self.computed[row.row] = row.prompt_done
        self.batch.promote()
        chunks = self.batch.plan()
        self.check(chunks)
        for chunk in chunks:
            assert chunk.start == self.computed[chunk.row]
            self.computed[chunk.row] = chunk.start + chunk.count
        self.batch.advance(chunks, 0.1)
        self.batch.promote()
        for row in self.batch.rows():
            if row.state is State.DECODE and self.batch.took(row, 0) is not None:
                self.done[row.row] = row.generated
                self.batch.end(row.row)

    def check(self, chunks: list[Chunk]) -> None:
        """The laws that hold between admission and computing."""
        batch = self.batch
        prefilling = [row for row in batch.rows() if row.state is State.PREFILL]
        assert batch.decoding + batch.prefilling <= batch.max_rows
        assert len(prefilling) <= PREFILL_ROWS_MAX
        assert (
            sum(row.prompt_tokens - 1 - row.cached > batch.prefill_chunk for row in prefilling) <= PREFILL_LONG_ROWS_MAX
        )
        assert {chunk.row for chunk in chunks} == {row.row for row in prefilling}
        assert all(chunk.count > 0 for chunk in chunks)
        padded = len(chunks) * max((chunk.count for chunk in chunks), default=0)
        assert padded <= max(batch.prefill_chunk, len(chunks))
        assert batch.queued + batch.prefilling + batch.decoding == len(batch.rows())


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=40),
    st.integers(1, 12),
    st.integers(1, 200),
    st.lists(st.none() | st.integers(0, 45), max_size=30),
    st.sampled_from([0, 0, 64, 320]),
)
def test_every_row_ends_once_with_its_whole_prompt_computed_in_order(
    lengths: list[int], max_rows: int, chunk: int, cancels: list[int | None], cached: int
) -> None:
    run = Run(batch_of(*lengths, max_rows=max_rows, prefill_chunk=chunk), lengths, cached=cached)
    run_rows = {row.row: row for row in run.batch.rows()}
    for row in run_rows.values():
        row.max_tokens = run.max_tokens
        row.cached = min(cached, row.prompt_tokens - 1)
    for cancel in cancels:
        run.step(cancel)
    # Progress: each step computes a token of the oldest row in prefill, or takes one of every decoding row.
    for _ in range(sum(lengths) + len(lengths) * run.max_tokens + 1):
        run.step()
    assert run.batch.rows() == []
    assert run.batch.kv_tokens == 0
    assert sorted(run.done) == list(range(len(lengths)))
    for number, generated in run.done.items():
        if generated == run.max_tokens:
            assert run.computed[number] == lengths[number] - 1


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(1, 12), st.integers(1, 200))
def test_identical_calls_give_identical_plans(lengths: list[int], max_rows: int, chunk: int) -> None:
    def plans() -> list[list[Chunk]]:
        batch = batch_of(*lengths, max_rows=max_rows, prefill_chunk=chunk)
        seen: list[list[Chunk]] = []
        for _ in range(10):
            batch.admit()
            seen.append(batch.plan())
            batch.advance(seen[-1], 0.0)
            batch.promote()
        return seen

    assert plans() == plans()
