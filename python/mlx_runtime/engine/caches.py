"""What is done to the KV caches of mlx-lm 0.32.2: made, joined, parted, read into, copied out of.

It owns everything that leans on mlx-lm's insides, so that a new version touches one file. It uses the caches and not
the `BatchGenerator` around them, whose constructor wires the whole GPU working set (systems have frozen over that) and
whose own policy cannot keep a token budget across rows.

What it relies on, beyond `make_prompt_cache`:
- a batch cache has `filter(indices)`, `extend(other)`, `state`, and `prepare(lengths=, right_padding=)` before and
  `finalize()` after tokens that are padded on the right; `_merge_caches` makes batch caches of rows' caches
- a cache without `merge` cannot be batched
- `BatchKVCache` holds row i between `left_padding[i]` and `_idx`; `extract(i)` of a batch cache copies a row out of it,
  and a single cache made so can be merged again
"""

import copy
import importlib
from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx

from mlx_runtime.engine.evaluation import evaluate
from mlx_runtime.prefix_cache import Reuse


def make_caches(model: Any) -> list[Any]:
    """An empty KV cache for one row."""
    return cast(list[Any], _cache_module().make_prompt_cache(model))


def can_batch(model: Any) -> bool:
    """Whether every layer's cache can stand in a batch."""
    return all(hasattr(cache, "merge") for cache in make_caches(model))


def reuse_of(model: Any) -> Reuse:
    """What copies of this model's rows can be used for.

    By the kinds of its caches: an empty sliding window says it can be trimmed, and cannot once it has slid. Kinds whose
    copies are not proved to continue exactly (recurrent state, quantised caches) are not reused.
    """
    module = _cache_module()
    caches = make_caches(model)
    kinds: set[type] = {type(cache) for cache in caches}
    if kinds == {module.KVCache} and module.can_trim_prompt_cache(caches):
        return Reuse.CUT
    return Reuse.WHOLE if kinds <= {module.KVCache, module.RotatingKVCache} else Reuse.NONE


def cut(caches: list[Any], tokens: int) -> list[Any]:
    """Caches of the first tokens of a taken row, which stays as it is: they share its arrays."""
    shorter = [copy.copy(cache) for cache in caches]
    for cache in shorter:
        if cache.offset > tokens:
            cache.trim(cache.offset - tokens)
    return shorter


def merged(rows: list[list[Any]]) -> list[Any]:
    """A batch of rows with caches of their own, padded to the longest."""
    return cast(list[Any], _generate_module()._merge_caches(rows))


def joined(parts: list[Any]) -> Any:
    """One layer's cache of all rows, in their order, which uses up the parts. By pairs, so no row is copied often."""
    while len(parts) > 1:
        for index in range(1, len(parts), 2):
            parts[index - 1].extend(parts[index])
        parts = parts[::2]
    return parts[0]


def parted(cache: Any, rows: list[int]) -> Any:
    """One layer's cache of some rows, no longer than they need. The other one stays as it is, and is held until this is
    computed."""
    part = copy.deepcopy(cache)
    part.filter(rows)
    for one in _plain([part]):
        # Cut at the left, it would be a view that holds the padding too.
        if one.keys is not None:
            one.keys, one.values = mx.contiguous(one.keys), mx.contiguous(one.values)
    return part


def unused(batch: list[Any], longest: int) -> int:
    """How much further the batch reaches than its longest row: prompts of unlike chunks leave padding behind."""
    return next((int(cache._idx) - longest for cache in _plain(batch)), 0)


def read(model: Any, batch: list[Any], tokens: list[list[int]]) -> None:
    """Feed the next tokens of every row of a batch, and wait for the result."""
    lengths = [len(row) for row in tokens]
    padding = [max(lengths) - length for length in lengths]
    ids = mx.array([row + [0] * short for row, short in zip(tokens, padding, strict=True)])
    if any(padding):
        for cache in batch:
            cache.prepare(lengths=lengths, right_padding=padding)
    model(ids, cache=batch)
    evaluate([cache.state for cache in batch])
    mx.clear_cache()
    if any(padding):
        for cache in batch:
            cache.finalize()
        evaluate([cache.state for cache in batch])
        mx.clear_cache()


def taken(batch: list[Any], index: int, tokens: int) -> list[Any]:
    """A copy of the first tokens of a row, not yet computed; of a window, of what it holds."""
    module = _cache_module()
    plain = next((cache for cache in batch if isinstance(cache, module.BatchKVCache)), None)
    # The layers agree on the padding, and to read it once is to wait for the device once.
    start = 0 if plain is None else int(plain.left_padding.tolist()[index])
    copies: list[Any] = []
    for cache in batch:
        if isinstance(cache, module.BatchKVCache):
            row = slice(index, index + 1)
            one = module.KVCache()
            one.keys = mx.contiguous(cache.keys[row, :, start : min(start + tokens, cache._idx)])
            one.values = mx.contiguous(cache.values[row, :, start : min(start + tokens, cache._idx)])
            one.offset = one.keys.shape[2]
        else:
            one = cache.extract(index)
            # A long chunk leaves more in a window than another row would take over.
            one.keys = mx.contiguous(one.keys[:, :, -one.max_size :])
            one.values = mx.contiguous(one.values[:, :, -one.max_size :])
            one._idx = one.keys.shape[2]
        copies.append(one)
    return copies


def _plain(batch: Sequence[Any]) -> list[Any]:
    """The caches that grow with every token, wherever they are."""
    module = _cache_module()
    found: list[Any] = []
    for cache in batch:
        if isinstance(cache, module.CacheList):
            found += _plain(cache.caches)
        elif isinstance(cache, module.BatchKVCache):
            found.append(cache)
    return found


def _generate_module() -> Any:
    # By name: the import takes seconds and must not hold up `hello`; and mlx-lm has no types worth keeping.
    return importlib.import_module("mlx_lm.generate")


def _cache_module() -> Any:
    return importlib.import_module("mlx_lm.models.cache")
