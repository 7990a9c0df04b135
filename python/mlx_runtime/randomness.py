"""One uniform number for each drawn token, a function of the row's seed and the token's position alone. Pure.

It owns the repeatability of seeded answers: nothing here depends on the batch, the step or the device. It refuses
state. The generator is SplitMix64 (Steele, Lea, Flood 2014) used as a counter: the seed is scrambled once, so that
neighbouring seeds do not give shifted copies of one stream.
"""

import secrets
from typing import Final

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
# 23 bits and a half step: every value is exact in float32, and none is 0 or rounds to 1.
_BITS: Final = 23


def fresh_seed() -> int:
    """A seed for a row that brought none."""
    return secrets.randbits(64)


def uniforms(seeds: U64, positions: U64) -> NDArray[np.float32]:
    """One number in (0, 1) for each row."""
    drawn = _mixed(_mixed(seeds + _GAMMA) + (positions + np.uint64(1)) * _GAMMA)
    return ((drawn >> np.uint64(64 - _BITS)).astype(np.float32) + np.float32(0.5)) / np.float32(1 << _BITS)


def _mixed(z: U64) -> U64:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
