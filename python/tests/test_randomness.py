"""The counter-based numbers: a function of seed and position, even, and never at the ends."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlx_runtime.randomness import fresh_seed, uniforms

U64 = st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(U64, U64), min_size=1, max_size=20))
def test_a_number_depends_on_its_own_seed_and_position_alone(pairs: list[tuple[int, int]]) -> None:
    seeds, positions = (np.array(column, dtype=np.uint64) for column in zip(*pairs, strict=True))
    together = uniforms(seeds, positions)
    alone = [uniforms(seeds[n : n + 1], positions[n : n + 1])[0] for n in range(len(pairs))]
    assert together.tolist() == [float(number) for number in alone]
    assert all(0.0 < number < 1.0 for number in together.tolist())


def test_the_extremes_stay_inside_the_open_interval() -> None:
    steps = (np.array([0, 2**23 - 1], dtype=np.float32) + np.float32(0.5)) / np.float32(2**23)
    assert 0.0 < steps[0] < steps[1] < 1.0
    assert np.float32(steps[1]) * np.float32(16777215.0) < np.float32(16777215.0)


def test_numbers_of_one_seed_and_of_neighbouring_seeds_are_even_and_unrelated() -> None:
    count = 20000
    positions = np.arange(count, dtype=np.uint64)
    streams = [uniforms(np.full(count, seed, dtype=np.uint64), positions) for seed in (0, 1, 2**63)]
    for stream in streams:
        assert abs(float(stream.mean()) - 0.5) < 0.01
        assert np.all(np.abs(np.histogram(stream, 10, (0, 1))[0] - count / 10) < 200)
    assert abs(float(np.corrcoef(streams[0], streams[1])[0, 1])) < 0.03
    assert abs(float(np.corrcoef(streams[0][1:], streams[0][:-1])[0, 1])) < 0.03


def test_rows_without_a_seed_get_different_ones() -> None:
    assert len({fresh_seed() for _ in range(100)}) == 100
