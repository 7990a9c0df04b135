"""Which rows share a dense KV cache: within the room, in the fewest groups, and seldom moved. Nothing here has MLX."""

import itertools
import random
import time
from collections.abc import Sequence

from hypothesis import assume, given
from hypothesis import strategies as st

from mlx_runtime.grouping import UNBOUNDED, Seat, regrouped, size

QUANTUM = 256

LENGTHS = st.lists(st.integers(0, 3000), min_size=1, max_size=7)
STAGES = st.lists(st.booleans(), min_size=7, max_size=7)


def seats(lengths: Sequence[int], decoding: Sequence[bool] | bool = True) -> list[Seat]:
    """Rows 0, 1, 2, ... of these lengths."""
    stages = [decoding] * len(lengths) if isinstance(decoding, bool) else decoding
    return [Seat(row, length, stage) for row, (length, stage) in enumerate(zip(lengths, stages, strict=False))]


def held(groups: Sequence[Sequence[int]], rows: Sequence[Seat]) -> int:
    """What groups of these rows hold."""
    length = {seat.row: seat.tokens for seat in rows}
    return size((len(group), max(length[row] for row in group)) for group in groups)


def least(rows: Sequence[Seat]) -> int:
    """What a group for each row would hold."""
    return held([[seat.row] for seat in rows], rows)


def partitions(rows: Sequence[int]) -> list[list[list[int]]]:
    """All ways to cut a row of rows into neighbours."""
    cuts = itertools.chain.from_iterable(
        itertools.combinations(range(1, len(rows)), count) for count in range(len(rows))
    )
    return [[list(rows[a:b]) for a, b in itertools.pairwise([0, *cut, len(rows)])] for cut in cuts]


def fewest(rows: Sequence[Seat], room: int) -> tuple[int, int]:
    """By trying everything: the fewest groups within the room, and the least that so many hold."""
    pools = [[seat.row for seat in sorted(pool, key=lambda seat: seat.tokens)] for pool in apart(rows)]
    ways = itertools.product(*(partitions(pool) for pool in pools))
    every = [list(itertools.chain.from_iterable(way)) for way in ways]
    return min((len(groups), held(groups, rows)) for groups in every if held(groups, rows) <= room)


def apart(rows: Sequence[Seat]) -> list[list[Seat]]:
    """The groups by stage, as few as there can be."""
    return [pool for stage in (True, False) if (pool := [seat for seat in rows if seat.decoding is stage])]


def lengthened(groups: Sequence[Sequence[int]], rows: Sequence[Seat], more: int) -> list[list[Seat]]:
    """These groups after so many steps."""
    by_row = {seat.row: seat for seat in rows}
    return [[Seat(row, by_row[row].tokens + more, by_row[row].decoding) for row in group] for group in groups]


def test_with_room_to_spare_all_rows_stay_in_one_group() -> None:
    rows = seats([16_000, *[1_000] * 7])
    assert regrouped([rows], UNBOUNDED, changed=True) is None
    assert regrouped([rows], 8 * 16_128, changed=True) is None
    assert regrouped([rows[:1], rows[1:]], UNBOUNDED, changed=True) == [[1, 2, 3, 4, 5, 6, 7, 0]]


def test_one_long_row_is_parted_from_short_ones_when_they_would_not_fit() -> None:
    rows = seats([16_000, *[1_000] * 7])
    assert regrouped([rows], 8 * 16_128 - 1, changed=False) == [[1, 2, 3, 4, 5, 6, 7], [0]]
    assert regrouped([rows], 16_128 + 7 * 1_024, changed=False) == [[1, 2, 3, 4, 5, 6, 7], [0]]


def test_rows_that_prefill_and_rows_that_decode_share_the_room_and_no_group() -> None:
    rows = seats([9_000, 900, 8_000, 800], [True, True, False, False])
    room = least(rows)
    assert regrouped([rows], UNBOUNDED, changed=True) == [[0, 1], [2, 3]]
    assert regrouped([rows[:2], rows[2:]], room, changed=False) == [[1], [0], [3], [2]]
    # One more group is enough here, and it saves most where the longest row is.
    assert regrouped([rows[:2], rows[2:]], room + 8_192 - 1_024, changed=False) == [[1], [0], [3, 2]]


def test_a_row_longer_than_the_room_runs_and_so_do_rows_that_only_rounding_makes_too_many() -> None:
    assert regrouped([seats([40_000])], 1_024, changed=True) is None
    # 64 rows of 1 to 64 tokens, with room for their tokens: all take a quantum, and to part them would save nothing.
    assert regrouped([seats(range(1, 65))], 64 * 65 // 2, changed=True) is None
    # A group for each of the 64 lengths would be the least; a few that take an eighth more are better.
    many = regrouped([seats(range(256, 256 * 65, 256))], 1, changed=True)
    assert many is not None
    assert len(many) <= 8


@given(LENGTHS, STAGES, st.integers(1, 20_000), st.booleans())
def test_groups_stay_within_the_room_whenever_a_group_for_each_row_would(
    lengths: list[int], stages: list[bool], room: int, changed: bool
) -> None:
    rows = seats(lengths, stages)
    groups = regrouped(apart(rows), room, changed) or [[seat.row for seat in pool] for pool in apart(rows)]
    assert sorted(itertools.chain.from_iterable(groups)) == list(range(len(rows)))
    assert all(len({rows[row].decoding for row in group}) == 1 for group in groups)
    assert held(groups, rows) <= (room if least(rows) <= room else least(rows) * 9 // 8)


@given(LENGTHS, STAGES, st.integers(1, 20_000))
def test_groups_that_do_not_fit_become_the_fewest_that_do_and_the_smallest_of_those(
    lengths: list[int], stages: list[bool], room: int
) -> None:
    rows = seats(lengths, stages)
    assume(least(rows) <= room)
    groups = regrouped(apart(rows), room, changed=False)
    if groups is None:
        assert size((len(pool), max(seat.tokens for seat in pool)) for pool in apart(rows)) <= room
    else:
        assert (len(groups), held(groups, rows)) == fewest(rows, room)


@given(LENGTHS, STAGES, st.integers(1, 20_000), st.randoms())
def test_whatever_the_groups_were_a_second_look_changes_nothing_and_there_are_few(
    lengths: list[int], stages: list[bool], room: int, chance: random.Random
) -> None:
    rows = seats(lengths, stages)
    chance.shuffle(rows)
    rows.sort(key=lambda seat: seat.row % 3)
    before = [list(group) for _, group in itertools.groupby(rows, key=lambda seat: seat.row % 3)]
    groups = regrouped(before, room, changed=True)
    after = before if groups is None else lengthened(groups, rows, 0)
    assert regrouped(after, room, changed=True) is None
    assert regrouped(after, room, changed=False) is None
    if least(rows) <= room:
        assert len(after) <= fewest(rows, room - (room - least(rows)) // 2)[0]


@given(LENGTHS, st.integers(1, 40_000))
def test_growing_rows_move_no_more_often_than_their_groups_take_another_quantum(lengths: list[int], room: int) -> None:
    groups, moves, crossings = [seats(lengths)], 0, 0
    for _ in range(400):
        grown = [[Seat(seat.row, seat.tokens + 1, True) for seat in group] for group in groups]
        crossings += sum(max(seat.tokens for seat in group) % QUANTUM == 1 for group in grown)
        wanted = regrouped(grown, room, changed=False)
        moves += wanted is not None
        groups = grown if wanted is None else lengthened(wanted, list(itertools.chain.from_iterable(grown)), 0)
    assert moves <= crossings + 1


@given(st.lists(st.integers(1, 9_000), min_size=2, max_size=12), st.integers(20_000, 60_000))
def test_rows_that_a_departure_brought_together_stay_so_for_a_quantum_if_there_is_any_slack(
    lengths: list[int], room: int
) -> None:
    rows = seats(lengths)
    wanted = regrouped([[seat] for seat in rows], room, changed=True)
    assume(wanted is not None and least(rows) + 2 * QUANTUM * len(rows) <= room)
    assert wanted is not None
    for steps in range(1, QUANTUM + 1):
        assert regrouped(lengthened(wanted, rows, steps), room, changed=False) is None


def test_a_thousand_rows_of_all_lengths_are_parted_in_a_moment() -> None:
    rows = seats([row * 131 for row in range(1, 1_025)])
    for room in (least(rows) - 1, least(rows), least(rows) * 5 // 4):
        started = time.process_time()
        groups = regrouped([rows], room, changed=True)
        # Seconds, where trying all cuts for each number of groups takes minutes: no promise of a speed.
        assert time.process_time() - started < 20
        assert groups is not None
        assert held(groups, rows) <= max(room, least(rows) * 9 // 8)
