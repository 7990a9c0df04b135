"""Draws the next token of every row in one vectorised pass. It owns the meaning of the sampling parameters.

For each row, on the logits in float32:
1. `logit_bias` is added
2. repetition: logits of tokens in the prompt or the answer are divided by the penalty if positive, else multiplied
   (Keskar et al. 2019); then the frequency penalty times the count in the answer, and the presence penalty, are taken
   off
3. the logprobs asked for are those of this distribution
4. temperature 0 takes the best token; otherwise the logits are divided by the temperature
5. `top_k`, then `top_p` among those left, then `min_p` relative to the best, each keeping at least one token
6. one uniform number, fixed by seed and position, is turned into a token by the inverse of the cumulative
   distribution

Rows are put into groups when the batch changes, and a step does only the work its groups need: a greedy batch is one
argmax, and rows without penalties never touch those that have them. Nothing here raises on any logits.
"""

from dataclasses import dataclass, field
from typing import cast

import mlx.core as mx
import numpy as np

from mlx_runtime.backend import Logprob
from mlx_runtime.engine.evaluation import add_at, from_numpy
from mlx_runtime.protocol import Sampling
from mlx_runtime.randomness import uniforms


@dataclass(slots=True)
class Drawer:
    """What the sampler keeps of one row. `drawn` counts the tokens of its answer: when the row joins, those the last of
    its `ids` replay. The ids are only looked at then."""

    row: int
    sampling: Sampling
    seed: int
    top_logprobs: int | None
    ids: tuple[int, ...]
    drawn: int = 0

    @property
    def adjusts(self) -> bool:
        """Whether the logits change before temperature."""
        s = self.sampling
        return bool(
            s.logit_bias or s.repetition_penalty != 1.0 or s.presence_penalty != 0.0 or s.frequency_penalty != 0.0
        )

    @property
    def filters(self) -> bool:
        """Whether some tokens are kept from being drawn."""
        return self.sampling.top_k > 0 or self.sampling.top_p < 1.0 or self.sampling.min_p > 0.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """Tokens, and logprobs for the rows that asked, not yet computed."""

    tokens: mx.array
    asked: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    chosen: mx.array | None = None
    best_ids: mx.array | None = None
    best: mx.array | None = None

    def arrays(self) -> list[mx.array]:
        """Everything to compute."""
        return [array for array in (self.tokens, self.chosen, self.best_ids, self.best) if array is not None]

    def logprobs(self) -> dict[int, Logprob]:
        """The logprobs by row, as Python numbers."""
        if self.chosen is None:
            return {}
        chosen = cast(list[float], self.chosen.tolist())
        ids = cast(list[list[int]], [] if self.best_ids is None else self.best_ids.tolist())
        best = cast(list[list[float]], [] if self.best is None else self.best.tolist())
        told: dict[int, Logprob] = {}
        for index, (row, count) in enumerate(self.asked):
            pairs = list(zip(ids[index][:count], best[index][:count], strict=True)) if count else []
            told[row] = (chosen[index], pairs)
        return told


class Sampler:
    """The rows of the decode batch, in its order."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab = vocab_size
        self._rows: list[Drawer] = []
        self._penalties = _Penalties([], vocab_size)
        self._regroup()

    def join(self, rows: list[Drawer]) -> None:
        """Rows join behind the others."""
        self._penalties = self._penalties.joined([row for row in rows if row.adjusts])
        self._rows = self._rows + rows
        self._regroup()

    def keep(self, indices: list[int]) -> None:
        """Only these rows stay."""
        if len(indices) == len(self._rows):
            return
        self._rows = [self._rows[index] for index in indices]
        self._penalties = self._penalties.kept({row.row for row in self._rows})
        self._regroup()

    def draw(self, logits: mx.array, fed: mx.array) -> Drawn:
        """The next tokens. `fed` are the tokens these logits follow."""
        if self._adjusting:
            rows = mx.array(self._adjusting)
            logits = logits.astype(mx.float32)
            logits[rows] = self._penalties.applied(logits[rows], fed[rows])
        tokens = mx.argmax(logits, axis=-1) if self._greedy else mx.zeros(len(self._rows), dtype=mx.uint32)
        for group in (self._plain, self._filtered):
            if group is not None:
                numbers = from_numpy(group.uniforms(self._rows))
                drawn = group.draw(logits if group.whole else logits[group.indices], numbers)
                if group.whole:
                    tokens = drawn
                else:
                    tokens[group.indices] = drawn
        for row in self._rows:
            row.drawn += 1
        return self._with_logprobs(logits, tokens)

    def state(self) -> list[mx.array]:
        """Arrays that live from step to step, to be computed along."""
        return self._penalties.state()

    def _with_logprobs(self, logits: mx.array, tokens: mx.array) -> Drawn:
        if not self._asking:
            return Drawn(tokens)
        rows = mx.array(self._asking)
        asked = [(self._rows[index].row, self._rows[index].top_logprobs or 0) for index in self._asking]
        scores = logits[rows].astype(mx.float32)
        scores = scores - mx.logsumexp(scores, axis=-1, keepdims=True)
        chosen = mx.take_along_axis(scores, tokens[rows][:, None], axis=-1)[:, 0]
        most = min(max(count for _, count in asked), self._vocab)
        if most == 0:
            return Drawn(tokens, asked, chosen)
        ids = mx.argsort(-scores, axis=-1)[:, :most]
        return Drawn(tokens, asked, chosen, ids, mx.take_along_axis(scores, ids, axis=-1))

    def _regroup(self) -> None:
        rows = list(enumerate(self._rows))
        hot = [(index, row) for index, row in rows if row.sampling.temperature > 0.0]
        self._greedy = len(hot) < len(rows)
        self._adjusting = [index for index, row in rows if row.adjusts]
        self._asking = [index for index, row in rows if row.top_logprobs is not None]
        plain = [index for index, row in hot if not row.filters]
        filtered = [index for index, row in hot if row.filters]
        self._plain = _Plain(self._rows, plain) if plain else None
        self._filtered = _Filtered(self._rows, filtered) if filtered else None


class _Plain:
    """Rows that are drawn from the whole distribution."""

    def __init__(self, rows: list[Drawer], members: list[int]) -> None:
        self.members = members
        self.indices = mx.array(members)
        self.whole = len(members) == len(rows)
        self._seeds = np.array([rows[index].seed for index in members], dtype=np.uint64)
        self._temperature = _column([rows[index].sampling.temperature for index in members])

    def uniforms(self, rows: list[Drawer]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """One number for each member."""
        positions = np.array([rows[index].drawn for index in self.members], dtype=np.uint64)
        return uniforms(self._seeds, positions)

    def draw(self, logits: mx.array, numbers: mx.array) -> mx.array:
        """One token for each member."""
        return _inverse(_heights(logits, self._temperature), numbers)


class _Filtered(_Plain):
    """Rows that are drawn from the best tokens only, found by sorting."""

    def __init__(self, rows: list[Drawer], members: list[int]) -> None:
        super().__init__(rows, members)
        chosen = [rows[index].sampling for index in members]
        # A top_k past the vocabulary keeps everything; bounded here because it may not fit into 32 bits.
        self._top_k = mx.array([[min(s.top_k, 1 << 30) or 1 << 30] for s in chosen], dtype=mx.uint32)
        self._top_p = _column([s.top_p for s in chosen])
        self._min_p = _column([s.min_p for s in chosen])

    def draw(self, logits: mx.array, numbers: mx.array) -> mx.array:
        """One token for each member."""
        order = mx.argsort(-logits, axis=-1)
        heights = _heights(mx.take_along_axis(logits, order, axis=-1), self._temperature)
        rank = mx.arange(heights.shape[-1], dtype=mx.uint32)[None, :]
        heights = mx.where(rank < self._top_k, heights, 0.0)
        above = mx.cumsum(heights, axis=-1, inclusive=False)
        nucleus = mx.logical_or(above < self._top_p * mx.sum(heights, axis=-1, keepdims=True), self._top_p >= 1.0)
        nucleus = mx.logical_and(nucleus, heights >= self._min_p)
        heights = mx.where(mx.logical_or(nucleus, rank == 0), heights, 0.0)
        return mx.take_along_axis(order, _inverse(heights, numbers)[:, None], axis=-1)[:, 0]


class _Penalties:
    """Counts, tokens seen at the start and biases of the rows that change their logits: [rows, vocabulary] arrays."""

    def __init__(self, rows: list[Drawer], vocab: int) -> None:
        self._vocab = vocab
        self._rows = rows
        self._counts = from_numpy(_replayed(rows, vocab))
        self._seen = from_numpy(_marks(rows, vocab))
        self._bias = from_numpy(_biases(rows, vocab))
        self._fresh = [True] * len(rows)
        self._columns()

    def joined(self, rows: list[Drawer]) -> "_Penalties":
        """With rows behind the others."""
        if not rows:
            return self
        new = _Penalties(rows, self._vocab)
        if not self._rows:
            return new
        new._rows = self._rows + rows
        new._fresh = self._fresh + new._fresh
        new._counts = mx.concatenate([self._counts, new._counts])
        new._seen = mx.concatenate([self._seen, new._seen])
        new._bias = mx.concatenate([self._bias, new._bias])
        new._columns()
        return new

    def kept(self, rows: set[int]) -> "_Penalties":
        """With these rows only."""
        keep = [index for index, row in enumerate(self._rows) if row.row in rows]
        if len(keep) == len(self._rows):
            return self
        new = _Penalties([], self._vocab)
        if not keep:
            return new
        indices = mx.array(keep)
        new._rows = [self._rows[index] for index in keep]
        new._fresh = [self._fresh[index] for index in keep]
        new._counts, new._seen, new._bias = self._counts[indices], self._seen[indices], self._bias[indices]
        new._columns()
        return new

    def applied(self, logits: mx.array, fed: mx.array) -> mx.array:
        """The changed logits. Counts the fed tokens, but for a row's first: that is the last of its ids."""
        weights = mx.array([0.0 if fresh else 1.0 for fresh in self._fresh])
        self._fresh = [False] * len(self._rows)
        self._counts = add_at(self._counts, mx.arange(len(self._rows)), fed, weights)
        generated = self._counts > 0.0
        logits = logits + self._bias
        scaled = mx.where(logits > 0.0, logits / self._repetition, logits * self._repetition)
        logits = mx.where(mx.logical_or(generated, self._seen), scaled, logits)
        return logits - self._frequency * self._counts - mx.where(generated, self._presence, 0.0)

    def state(self) -> list[mx.array]:
        """The arrays that change."""
        return [self._counts] if self._rows else []

    def _columns(self) -> None:
        self._repetition = _column([row.sampling.repetition_penalty for row in self._rows])
        self._presence = _column([row.sampling.presence_penalty for row in self._rows])
        self._frequency = _column([row.sampling.frequency_penalty for row in self._rows])


def _marks(rows: list[Drawer], vocab: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    marks = np.zeros((len(rows), vocab), dtype=np.bool_)
    for index, row in enumerate(rows):
        marks[index, list(row.ids)] = True
    return marks


def _replayed(rows: list[Drawer], vocab: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    counts = np.zeros((len(rows), vocab), dtype=np.float32)
    for index, row in enumerate(rows):
        replayed = np.array(row.ids[len(row.ids) - row.drawn :], dtype=np.int64)
        counts[index] = np.bincount(replayed, minlength=vocab)
    return counts


def _biases(rows: list[Drawer], vocab: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    biases = np.zeros((len(rows), vocab), dtype=np.float32)
    for index, row in enumerate(rows):
        for token, bias in row.sampling.logit_bias:
            biases[index, token] += bias
    return biases


def _heights(logits: mx.array, temperature: mx.array) -> mx.array:
    """Probabilities up to a factor: the best token has 1."""
    logits = logits.astype(mx.float32)
    return mx.exp((logits - mx.max(logits, axis=-1, keepdims=True)) / temperature)


def _inverse(heights: mx.array, numbers: mx.array) -> mx.array:
    """The first index whose cumulative height exceeds the number's share of the total; never one of height 0."""
    cumulative = mx.cumsum(heights, axis=-1)
    below = cumulative <= numbers[:, None] * cumulative[:, -1:]
    return mx.minimum(mx.sum(below, axis=-1), heights.shape[-1] - 1).astype(mx.uint32)


def _column(values: list[float]) -> mx.array:
    return mx.array(values, dtype=mx.float32)[:, None]
