"""The vectorised sampler against the oracle: every parameter, alone and together, in batches that rows join and
leave."""

import itertools
import math
import random
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

import oracle
from mlx_runtime.engine.evaluation import from_numpy
from mlx_runtime.engine.sampling import Drawer, Sampler
from mlx_runtime.protocol import Sampling
from mlx_runtime.randomness import uniforms

VOCAB = 97
COMBINATIONS = [
    Sampling(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=penalties[0],
        presence_penalty=penalties[1],
        frequency_penalty=penalties[2],
        logit_bias=bias,
    )
    for temperature, top_p, top_k, min_p, penalties, bias in itertools.product(
        (0.0, 0.7, 1.6),
        (1.0, 0.8),
        (0, 5),
        (0.0, 0.1),
        ((1.0, 0.0, 0.0), (1.3, 0.4, 0.2)),
        ((), ((3, 4.0), (8, -50.0))),
    )
]


def listed(array: mx.array) -> list[int]:
    """The values of a computed array."""
    return cast(list[int], array.tolist())


class Reference:
    """One row as the oracle sees it; the beginning of its answer may have been drawn by another."""

    def __init__(self, number: int, sampling: Sampling, chance: random.Random, top_logprobs: int | None = None) -> None:
        self.sampling = sampling
        self.seed = chance.getrandbits(64)
        self.prompt = [chance.randrange(VOCAB) for _ in range(chance.randint(1, 20))]
        self.answer = [chance.randrange(VOCAB) for _ in range(chance.choice([0, 0, 1, 30]))]
        ids = tuple(self.prompt + self.answer)
        self.drawer = Drawer(number, sampling, self.seed, top_logprobs, ids, len(self.answer))

    def fed(self) -> int:
        return self.answer[-1] if self.answer else self.prompt[-1]

    def check(self, logits: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", token: int) -> bool:
        scores = oracle.adjusted(logits, self.sampling, self.prompt, self.answer)
        number = uniforms(np.array([self.seed], np.uint64), np.array([len(self.answer)], np.uint64))[0]
        expected = oracle.draw(scores, self.sampling, float(number))
        self.answer.append(token)
        if expected.certain:
            assert token == expected.token, (self.sampling, len(self.answer))
        return expected.certain


def step(sampler: Sampler, rows: list[Reference], chance: random.Random) -> int:
    """One step of all rows; how many comparisons were beyond doubt."""
    logits = np.array([[chance.gauss(0, 3) for _ in range(VOCAB)] for _ in rows])
    fed = mx.array([row.fed() for row in rows], dtype=mx.uint32)
    drawn = sampler.draw(from_numpy(logits.astype(np.float32)), fed)
    tokens = listed(drawn.tokens)
    narrow = logits.astype(np.float32).astype(np.float64)
    return sum(row.check(narrow[index], tokens[index]) for index, row in enumerate(rows))


def test_every_combination_of_parameters_draws_what_the_oracle_draws() -> None:
    chance = random.Random(1)
    sampler, rows = Sampler(VOCAB), [Reference(n, sampling, chance) for n, sampling in enumerate(COMBINATIONS)]
    sampler.join([row.drawer for row in rows])
    certain = sum(step(sampler, rows, chance) for _ in range(12))
    assert certain > 0.95 * 12 * len(rows)


@pytest.mark.parametrize("seed", range(6))
def test_rows_that_join_and_leave_do_not_change_what_others_draw(seed: int) -> None:
    chance = random.Random(seed)
    rows: list[Reference] = []
    sampler, numbers = Sampler(VOCAB), itertools.count()
    for _ in range(40):
        if chance.random() < 0.5 or not rows:
            fresh = [Reference(next(numbers), chance.choice(COMBINATIONS), chance) for _ in range(chance.randint(1, 3))]
            sampler.join([row.drawer for row in fresh])
            rows += fresh
        elif chance.random() < 0.5:
            keep = sorted(chance.sample(range(len(rows)), chance.randint(0, len(rows))))
            sampler.keep(keep)
            rows = [rows[index] for index in keep]
        if rows:
            step(sampler, rows, chance)


def test_each_parameter_alone_changes_what_is_drawn() -> None:
    chance = random.Random(2)
    base = Sampling(temperature=1.0)
    changed = [
        Sampling(temperature=0.0),
        Sampling(temperature=1.0, top_p=0.3),
        Sampling(temperature=1.0, top_k=2),
        Sampling(temperature=1.0, min_p=0.5),
        Sampling(temperature=1.0, repetition_penalty=5.0),
        Sampling(temperature=1.0, presence_penalty=20.0),
        Sampling(temperature=1.0, frequency_penalty=20.0),
        Sampling(temperature=1.0, logit_bias=((4, 30.0),)),
    ]
    logits = [[chance.gauss(0, 1) for _ in range(VOCAB)] for _ in range(60)]

    def answer(sampling: Sampling) -> list[int]:
        sampler, tokens = Sampler(VOCAB), [7]
        sampler.join([Drawer(0, sampling, 5, None, (7, 8, 9))])
        for row in logits:
            tokens += listed(sampler.draw(mx.array([row]), mx.array([tokens[-1]], dtype=mx.uint32)).tokens)
        return tokens

    plain = answer(base)
    assert [answer(sampling) != plain for sampling in changed] == [True] * len(changed)


def test_presence_and_frequency_ignore_the_prompt_and_repetition_does_not() -> None:
    logits = mx.array([[1.0, 0.9, 0.0, -1.0]])

    def first(sampling: Sampling) -> int:
        sampler = Sampler(4)
        sampler.join([Drawer(0, sampling, 0, None, (0, 0, 0))])
        return listed(sampler.draw(logits, mx.array([0], dtype=mx.uint32)).tokens)[0]

    assert first(Sampling(temperature=0.0, presence_penalty=2.0, frequency_penalty=2.0)) == 0
    assert first(Sampling(temperature=0.0, repetition_penalty=1.5)) == 1


def test_presence_and_frequency_count_what_was_replayed_each_once() -> None:
    logits = mx.array([[1.0, 0.9, 0.0, -1.0]])

    def first(sampling: Sampling, replayed: tuple[int, ...]) -> int:
        sampler = Sampler(4)
        sampler.join([Drawer(0, sampling, 0, None, (3, *replayed), len(replayed))])
        return listed(sampler.draw(logits, mx.array([replayed[-1]], dtype=mx.uint32)).tokens)[0]

    for replayed in ((0,), (0, 2), (2, 0)):
        assert first(Sampling(temperature=0.0, presence_penalty=0.2), replayed) == 1
        assert first(Sampling(temperature=0.0, presence_penalty=0.05), replayed) == 0
        assert first(Sampling(temperature=0.0, frequency_penalty=0.08), replayed) == 0
    assert first(Sampling(temperature=0.0, frequency_penalty=0.08), (0, 0)) == 1


def test_logprobs_are_those_of_the_distribution_before_temperature_and_filters() -> None:
    chance = random.Random(3)
    sampler = Sampler(VOCAB)
    asked = [(None, 0.0), (0, 0.5), (3, 0.0), (20, 1.5)]
    rows = [
        Reference(n, Sampling(temperature=t, top_k=4, repetition_penalty=1.2), chance, count)
        for n, (count, t) in enumerate(asked)
    ]
    sampler.join([row.drawer for row in rows])
    logits = np.array([[chance.gauss(0, 3) for _ in range(VOCAB)] for _ in rows]).astype(np.float32)
    drawn = sampler.draw(from_numpy(logits), mx.array([row.fed() for row in rows], dtype=mx.uint32))
    told = drawn.logprobs()
    assert sorted(told) == [1, 2, 3]
    for index in told:
        row = rows[index]
        scores = oracle.adjusted(logits[index].astype(np.float64), row.sampling, row.prompt, row.answer)
        expected = oracle.logprobs(scores)
        logprob, best = told[index]
        assert math.isclose(logprob, expected[listed(drawn.tokens)[index]], abs_tol=1e-4)
        assert [token for token, _ in best] == [int(t) for t in np.argsort(-expected)[: asked[index][0]]]
        assert np.allclose([value for _, value in best], np.sort(expected)[::-1][: asked[index][0]], atol=1e-4)


def test_a_token_without_probability_is_never_drawn() -> None:
    sampler = Sampler(VOCAB)
    rows = [Drawer(n, Sampling(temperature=1.0, top_p=p), n, None, (1,)) for n, p in enumerate([1.0, 0.999] * 32)]
    sampler.join(rows)
    logits = np.full((64, VOCAB), -np.inf, dtype=np.float32)
    logits[:, [10, 11]] = 0.0
    for _ in range(20):
        drawn = sampler.draw(from_numpy(logits), mx.zeros(64, dtype=mx.uint32))
        assert set(listed(drawn.tokens)) == {10, 11}


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf"), 0.0])
def test_no_logits_make_the_sampler_raise_or_leave_the_vocabulary(value: float) -> None:
    sampler = Sampler(VOCAB)
    sampler.join([Drawer(n, sampling, n, 2, (1, 2)) for n, sampling in enumerate(COMBINATIONS)])
    drawn = sampler.draw(mx.full((len(COMBINATIONS), VOCAB), value), mx.zeros(len(COMBINATIONS), dtype=mx.uint32))
    assert all(0 <= token < VOCAB for token in listed(drawn.tokens))
    assert len(drawn.logprobs()) == len(COMBINATIONS)


def test_a_greedy_batch_does_one_argmax_and_nothing_else() -> None:
    sampler = Sampler(VOCAB)
    sampler.join([Drawer(n, Sampling(temperature=0.0, top_p=0.5), 0, None, (1,)) for n in range(3)])
    drawn = sampler.draw(mx.zeros((3, VOCAB)), mx.zeros(3, dtype=mx.uint32))
    assert (len(drawn.arrays()), sampler.state()) == (1, [])


def test_only_rows_with_penalties_keep_counts() -> None:
    sampler = Sampler(VOCAB)
    penalised = Drawer(7, Sampling(frequency_penalty=0.5), 0, None, (1,))
    sampler.join([Drawer(n, Sampling(), 0, None, (1,)) for n in range(6)])
    assert sampler.state() == []
    sampler.join([penalised])
    sampler.draw(mx.zeros((7, VOCAB)), mx.zeros(7, dtype=mx.uint32))
    assert [array.shape for array in sampler.state()] == [(1, VOCAB)]
    sampler.keep([0, 1])
    assert sampler.state() == []
