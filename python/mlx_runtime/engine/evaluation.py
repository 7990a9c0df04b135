"""MLX's two ways to compute what is lazy, with types. It owns that one gap in MLX's stubs and nothing else."""

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx

_core = cast(Any, mx)


def evaluate(arrays: Sequence[object]) -> None:
    """Compute, and wait."""
    _core.eval(list(arrays))


def launch(arrays: Sequence[mx.array]) -> None:
    """Start computing; whoever reads a value waits for it."""
    _core.async_eval(list(arrays))


def add_at(into: mx.array, rows: mx.array, columns: mx.array, values: mx.array) -> mx.array:
    """A copy with `values` added at these places."""
    return cast(mx.array, cast(Any, into).at[rows, columns].add(values))


def from_numpy(array: object) -> mx.array:
    """An MLX array of a numpy one."""
    return cast(mx.array, _core.array(array))
