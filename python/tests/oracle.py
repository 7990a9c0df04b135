"""What the sampler should do, for one row at a time, in float64 numpy: the meaning of the sampling parameters spelled
out.

It refuses to be quick. Where a draw hangs on less than rounding can change, it says so, and the caller skips the
comparison.
"""

from collections import Counter
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mlx_runtime.protocol import Sampling

Row = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draw:
    """A token, and whether it is beyond doubt."""

    token: int
    certain: bool


def adjusted(logits: Row, sampling: Sampling, prompt: list[int], answer: list[int]) -> Row:
    """The logits after bias and penalties."""
    out = logits.astype(np.float64).copy()
    for token, bias in sampling.logit_bias:
        out[token] += bias
    for token in set(prompt) | set(answer):
        out[token] = (
            out[token] / sampling.repetition_penalty if out[token] > 0 else out[token] * sampling.repetition_penalty
        )
    for token, count in Counter(answer).items():
        out[token] -= sampling.frequency_penalty * count + sampling.presence_penalty
    return out


def logprobs(scores: Row) -> Row:
    """The logarithm of the softmax."""
    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())


def draw(scores: Row, sampling: Sampling, number: float) -> Draw:
    """The token a number picks from adjusted logits."""
    ranked = np.argsort(-scores, kind="stable")
    if sampling.temperature == 0.0:
        return Draw(int(ranked[0]), bool(scores[ranked[0]] - scores[ranked[1]] > 1e-5))
    heights = np.exp((scores - scores.max()) / sampling.temperature)
    kept, certain = kept_tokens(heights, ranked, sampling)
    filtered = len(kept) < len(scores) or sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0
    order = kept if filtered else list(range(len(scores)))
    cumulative = np.cumsum(heights[order])
    target = number * cumulative[-1]
    index = int(cast(int, np.searchsorted(cumulative, target, side="right")))
    gap = np.min(np.abs(cumulative - target)) / cumulative[-1]
    return Draw(int(order[min(index, len(order) - 1)]), certain and bool(gap > 1e-5))


def kept_tokens(heights: Row, ranked: NDArray[np.intp], sampling: Sampling) -> tuple[list[int], bool]:
    """The tokens the filters leave, best first, and whether no filter's edge is within rounding of a token."""
    kept = cast(list[int], ranked[: sampling.top_k or None].tolist())
    total, above, certain = float(heights[kept].sum()), 0.0, True
    nucleus: list[int] = []
    for token in kept:
        share = above / total
        if sampling.top_p < 1.0:
            certain = certain and abs(share - sampling.top_p) > 1e-6
            if nucleus and share >= sampling.top_p:
                break
        nucleus.append(token)
        above += float(heights[token])
    if sampling.min_p > 0.0:
        certain = certain and all(abs(float(heights[token]) - sampling.min_p) > 1e-7 for token in nucleus)
    return [token for index, token in enumerate(nucleus) if index == 0 or heights[token] >= sampling.min_p], certain
