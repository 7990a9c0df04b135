"""Turns a judged folder into a model on the device, with signs of life, and measures what a row of it costs.

It owns the order of loading: the graph first, then the weights in groups, with a sign of life after each while a large
model comes from the disk; a single large tensor is silent for as long as it takes. It refuses folders `folder` refuses,
architectures mlx-lm does not know, and models whose cache cannot be batched.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import mlx.core as mx
from mlx.utils import tree_flatten  # pyright: ignore[reportUnknownVariableType]

from mlx_runtime.backend import ModelFacts
from mlx_runtime.engine.caches import can_batch, make_caches
from mlx_runtime.engine.evaluation import evaluate
from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.folder import ModelFolder, open_folder
from mlx_runtime.limits import LOAD_GROUP_BYTES

# The dry run compares two lengths past every common sliding window, in calls short enough to build quickly.
_DRY_TOKENS: Final = 4096
_DRY_CHUNK: Final = 1024
# A module of mlx-lm is looked up by this name; nothing but a plain word may go into an import.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_\-]+")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, its tokenizer and its facts."""

    model: Any
    tokenizer: Any
    facts: ModelFacts


def load_folder(path: str, progress: Callable[[float], None]) -> Loaded:
    """Load the model at `path`. Raises `RuntimeFault`."""
    folder = open_folder(path)
    if not _PLAIN_NAME.fullmatch(folder.model_type):
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{path}: model_type is not a plain name")
    _refuse_too_large(folder)
    utils: Any = importlib.import_module("mlx_lm.utils")
    progress(0.0)
    try:
        model, _ = cast(tuple[Any, Any], utils.load_model(folder.path, lazy=True))
        progress(0.0)
        tokenizer = utils.load_tokenizer(folder.path, eos_token_ids=list(folder.eos_ids) or None)
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, OSError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{path} cannot be loaded: {text[:500]}") from error
    if not can_batch(model):
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{path}: the cache of {folder.model_type} cannot be batched")
    growth, fixed = _row_cost(model)
    _evaluate(model, progress)
    return Loaded(model, tokenizer, _facts(folder, model, utils, growth, fixed, tokenizer))


def _facts(folder: ModelFolder, model: Any, utils: Any, growth: int, fixed: int, tokenizer: Any) -> ModelFacts:
    return ModelFacts(
        model_type=folder.model_type,
        context_length=folder.context_length,
        parameters=int(utils.get_total_parameters(model)),
        weights_bytes=folder.weights_bytes,
        kv_bytes_per_token=growth,
        kv_bytes_per_row=fixed,
        dtype=folder.dtype,
        vocab_size=folder.vocab_size,
        eos_ids=folder.eos_ids or tuple(sorted(int(one) for one in tokenizer.eos_token_ids)),
    )


def _refuse_too_large(folder: ModelFolder) -> None:
    """Weights past the memory of the machine do not fail politely on every system; a kernel panic is on record."""
    memory = mx.device_info().get("memory_size")
    if isinstance(memory, int) and folder.weights_bytes > memory:
        text = f"the weights take {folder.weights_bytes} bytes, the machine has {memory}"
        raise RuntimeFault(Code.OUT_OF_MEMORY, text)


def _evaluate(model: Any, progress: Callable[[float], None]) -> None:
    arrays = [array for _, array in cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))]
    total = sum(array.nbytes for array in arrays) or 1
    group: list[mx.array] = []
    held = done = 0
    for array in arrays:
        group.append(array)
        held += array.nbytes
        if held >= LOAD_GROUP_BYTES:
            evaluate(group)
            done += held
            group, held = [], 0
            progress(done / total)
    evaluate(group)
    progress(1.0)


def _row_cost(model: Any) -> tuple[int, int]:
    """KV bytes that grow with each token, and those a row holds whatever its length.

    Runs the model on shapes alone: the graph is built and thrown away, nothing is computed. A model that insists on
    values in its forward pass cannot be measured this way; then both are 0, and the agent goes by what it sees.
    """
    try:
        sizes: list[int] = []
        caches = make_caches(model)
        for _ in range(2):
            for _ in range(_DRY_TOKENS // _DRY_CHUNK):
                model(mx.zeros((1, _DRY_CHUNK), dtype=mx.int32), cache=caches)
            sizes.append(sum(int(cache.nbytes) for cache in caches))
    except Exception:  # noqa: BLE001 - an estimate is not worth a model that would have run
        return 0, 0
    growth = max(0, sizes[1] - sizes[0]) // _DRY_TOKENS
    return growth, max(0, sizes[0] - growth * _DRY_TOKENS)
