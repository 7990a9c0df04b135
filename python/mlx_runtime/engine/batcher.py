"""The adapter over the batching of mlx-lm 0.32.2: rows with KV caches, prefilling on one side, decoding on the other.

It owns everything that leans on mlx-lm's insides, so that a new version touches one file. It drives the two halves
that mlx-lm's `BatchGenerator` is made of, not the generator itself, whose constructor wires the whole GPU working set
(systems have frozen over that) and whose own policy cannot keep a token budget across rows.

What it relies on, beyond `make_prompt_cache`:
- `PromptProcessingBatch(model, uids, caches, tokens, ...)` with `.prompt(tokens)`, `.extend`, `.split`, `.filter`,
  `.uids`
- a batch cache has `filter(indices)`, `extend(other)`, `state`; `_extend_cache(a, b)` joins two lists of them
- a cache without `merge` cannot be batched
- `BatchKVCache` holds row i between `left_padding[i]` and `_idx`; `extract(i)` of a batch cache copies a row out of it,
  and a single cache made so can be merged again
"""

import copy
import importlib
from collections.abc import Sequence
from typing import Any, Final, cast

import mlx.core as mx

from mlx_runtime.engine.evaluation import evaluate
from mlx_runtime.prefix_cache import Reuse

# Larger than any chunk: the chunks are cut by the batch, not by mlx-lm.
_WHOLE: Final = 1 << 30


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


class KvBatch:
    """The rows of one model. Prefilling rows and decoding rows are two batches with a cache each."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._generate = _generate_module()
        self._prompt: Any = self._empty_prompt()
        self._cache: list[Any] = []
        self._rows: list[int] = []

    @property
    def rows(self) -> list[int]:
        """The decoding rows, in the order of the batch."""
        return self._rows

    def start(self, rows: dict[int, list[Any] | None]) -> None:
        """Rows enter prefill, with a cache of their own or an empty one."""
        caches = [make_caches(self._model) if given is None else given for given in rows.values()]
        self._prompt.extend(self._prompt_batch(list(rows), caches))

    def take(self, row: int, tokens: int) -> list[Any] | None:
        """A copy of the cache of a row's first tokens, not yet computed; once it is, it pins nothing else.

        None if the cache cannot tell exactly these tokens: fewer are there, or a window has slid past them.
        """
        prompts = cast(list[int], self._prompt.uids)
        if row in prompts:
            taken = _taken(self._prompt.prompt_cache, prompts.index(row), tokens)
        else:
            taken = _taken(self._cache, self._rows.index(row), tokens)
        return taken if all(cache.offset == tokens for cache in taken) else None

    def prefill(self, tokens: dict[int, list[int]]) -> None:
        """Compute the next tokens of every prefilling row, and wait for the result."""
        self._prompt.prompt([tokens[row] for row in self._prompt.uids])

    def promote(self, rows: Sequence[int]) -> None:
        """Move rows from prefill behind the decoding rows, in the order they have there."""
        moving = [index for index, row in enumerate(self._prompt.uids) if row in set(rows)]
        if len(moving) == len(self._prompt.uids):
            moved, self._prompt = self._prompt, self._empty_prompt()
        else:
            moved = self._prompt.split(moving)
        self._cache = self._generate._extend_cache(self._cache, moved.prompt_cache)
        self._rows = self._rows + list(moved.uids)

    def drop(self, rows: set[int]) -> list[int]:
        """Forget rows. The indices of the decoding rows that stay."""
        prefilling = cast(list[int], self._prompt.uids)
        if rows.intersection(prefilling):
            self._prompt.filter([index for index, row in enumerate(prefilling) if row not in rows])
        keep = [index for index, row in enumerate(self._rows) if row not in rows]
        if not keep:
            self._cache = []
        elif len(keep) < len(self._rows):
            for cache in self._cache:
                cache.filter(keep)
        self._rows = [self._rows[index] for index in keep]
        return keep

    def forward(self, tokens: mx.array) -> mx.array:
        """Feed one token to each decoding row; the logits of the next, [rows, vocabulary], not yet computed."""
        logits = cast(mx.array, self._model(tokens[:, None], cache=self._cache))
        return logits[:, -1, :]

    def settle(self) -> None:
        """Evaluate what the caches keep lazily, so that no chain of bookkeeping grows with the age of the batch."""
        if self._cache:
            evaluate([cache.state for cache in self._cache])

    def _empty_prompt(self) -> Any:
        return self._prompt_batch([], [])

    def _prompt_batch(self, rows: list[int], caches: list[list[Any]]) -> Any:
        count = len(rows)
        return self._generate.PromptProcessingBatch(
            model=self._model,
            uids=rows,
            caches=caches,
            tokens=[[] for _ in rows],
            prefill_step_size=_WHOLE,
            samplers=[None] * count,
            logits_processors=[()] * count,
            stop_sequences=[None] * count,
            max_tokens=[0] * count,
        )


def cut(caches: list[Any], tokens: int) -> list[Any]:
    """Caches of the first tokens of a taken row, which stays as it is: they share its arrays."""
    shorter = [copy.copy(cache) for cache in caches]
    for cache in shorter:
        if cache.offset > tokens:
            cache.trim(cache.offset - tokens)
    return shorter


def _taken(batch: list[Any], index: int, tokens: int) -> list[Any]:
    module = _cache_module()
    plain = next((cache for cache in batch if isinstance(cache, module.BatchKVCache)), None)
    # The layers agree on the padding, and to read it once is to wait for the device once.
    start = 0 if plain is None else int(plain.left_padding.tolist()[index])
    taken: list[Any] = []
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
        taken.append(one)
    return taken


def _generate_module() -> Any:
    # By name: the import takes seconds and must not hold up `hello`; and mlx-lm has no types worth keeping.
    return importlib.import_module("mlx_lm.generate")


def _cache_module() -> Any:
    return importlib.import_module("mlx_lm.models.cache")
