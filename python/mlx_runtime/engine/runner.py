"""The backend on MLX: one model, its batch, its sampler. Everything but `tokenize` runs on the engine thread.

It owns the one-step lookahead: the step that computes token t+1 is launched before token t is read, so the device
works while Python counts, packs and sends. A row's first launch feeds the last token of its prompt together with the
other rows' tokens; a token fed that way is not an answer and is not reported.
"""

import importlib
import importlib.metadata
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import mlx.core as mx

from mlx_runtime.backend import Memory, ModelFacts, Sampled, Start
from mlx_runtime.batch import Chunk
from mlx_runtime.engine.batcher import KvBatch
from mlx_runtime.engine.caches import cut, reuse_of
from mlx_runtime.engine.evaluation import launch
from mlx_runtime.engine.loading import Loaded, load_folder
from mlx_runtime.engine.sampling import Drawer, Drawn, Sampler
from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.limits import BUFFER_CACHE_BYTES, PROGRESS_S
from mlx_runtime.prefix_cache import Kept, Reuse
from mlx_runtime.protocol import Generate, Load
from mlx_runtime.randomness import fresh_seed

_IMPORT_S_MAX: Final = 120.0


@dataclass(slots=True)
class _Pending:
    """A launched step: one token for each decoding row; `fresh` rows have only been fed their prompt's end."""

    drawn: Drawn
    fresh: list[bool]


class MlxBackend:
    """See `backend.Backend`."""

    def __init__(self) -> None:
        self._imported = threading.Event()
        self._loaded: Loaded | None = None
        self._asked: dict[int, Generate] = {}
        self._kv: KvBatch | None = None
        self._room: int | None = None
        self._sampler: Sampler | None = None
        self._pending: _Pending | None = None
        self._copies: list[mx.array] = []

    def versions(self) -> dict[str, object]:
        """The versions and the device."""
        return {
            "mlx": importlib.metadata.version("mlx"),
            "mlx_lm": importlib.metadata.version("mlx-lm"),
            "python": platform.python_version(),
            "device": str(mx.device_info().get("device_name", mx.default_device())),
        }

    def prepare(self) -> None:
        """Import mlx-lm: seconds, and on the main thread because it registers exit handlers."""
        importlib.import_module("mlx_lm.generate")
        importlib.import_module("mlx_lm.utils")
        self._imported.set()

    def load(self, spec: Load, progress: Callable[[float], None]) -> ModelFacts:
        """Load a model."""
        started = time.monotonic()
        while not self._imported.wait(PROGRESS_S / 2):
            progress(0.0)
            if time.monotonic() - started > _IMPORT_S_MAX:
                raise RuntimeFault(Code.INTERNAL, "the runtime's libraries are still being imported")
        mx.set_cache_limit(BUFFER_CACHE_BYTES)
        mx.reset_peak_memory()
        self._loaded = load_folder(spec.path, progress)
        self._room = spec.kv_tokens
        self.reset()
        return self._loaded.facts

    def unload(self) -> None:
        """Drop the model and its memory."""
        self._loaded = self._kv = self._sampler = self._pending = None
        self._copies = []
        self._asked.clear()
        mx.clear_cache()

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Ids of a text."""
        loaded = self._loaded
        if loaded is None:
            raise RuntimeFault(Code.NOT_LOADED, "no model is loaded")
        return [int(one) for one in cast(list[Any], loaded.tokenizer.encode(text, add_special_tokens=special))]

    def reuse(self) -> Reuse:
        """What a kept cache can be used for."""
        return Reuse.NONE if self._loaded is None else reuse_of(self._loaded.model)

    def start(self, rows: list[Start]) -> None:
        """Rows enter prefill."""
        self._asked.update((row.asked.row, row.asked) for row in rows)
        self._batch().start(
            {r.asked.row: cut(cast(list[Any], r.held), r.cached) if r.cached else None for r in rows},
        )

    def prefill(self, chunks: list[Chunk]) -> None:
        """Compute prompt tokens."""
        self._make_copies()
        self._batch().prefill({c.row: list(self._asked[c.row].ids[c.start : c.start + c.count]) for c in chunks})

    def promote(self, rows: list[int]) -> None:
        """Rows join the decode batch, with the last prompt token as the one to feed next."""
        kv, sampler = self._batch(), self._sampler
        before = len(kv.rows)
        kv.promote(rows)
        joined = [self._asked.pop(row) for row in kv.rows[before:]]
        last = mx.array([asked.ids[-1] for asked in joined], dtype=mx.uint32)
        if sampler is not None:
            sampler.join([_drawer(asked) for asked in joined])
        fresh = [True] * len(joined)
        if self._pending is None:
            self._pending = _Pending(Drawn(last), fresh)
        else:
            drawn = self._pending.drawn
            tokens = mx.concatenate([drawn.tokens, last])
            drawn = Drawn(tokens, drawn.asked, drawn.chosen, drawn.best_ids, drawn.best)
            self._pending = _Pending(drawn, self._pending.fresh + fresh)

    def decode(self) -> Sampled:
        """Launch the next step, then read the one before it."""
        kv, sampler, ready = self._batch(), self._sampler, self._pending
        if sampler is None or ready is None:
            return Sampled()
        fed = ready.drawn.tokens
        drawn = sampler.draw(kv.forward(fed), fed)
        launch(self._copies + drawn.arrays() + sampler.state())
        self._copies = []
        self._pending = _Pending(drawn, [False] * len(kv.rows))
        if all(ready.fresh):
            return Sampled()
        tokens = cast(list[int], fed.tolist())
        told = [index for index, fresh in enumerate(ready.fresh) if not fresh]
        return Sampled([kv.rows[i] for i in told], [tokens[i] for i in told], ready.drawn.logprobs())

    def keep(self, row: int, tokens: int, bytes_max: int) -> Kept | None:
        """A copy of a row's beginning."""
        caches = self._batch().take(row, tokens)
        size = sum(int(cache.nbytes) for cache in caches or [])
        if caches is None or size > bytes_max:
            return None
        self._copies += [array for cache in caches for array in (cache.keys, cache.values)]
        return Kept(caches, size)

    def drop(self, rows: list[int]) -> None:
        """Forget rows."""
        self._make_copies()
        for row in rows:
            self._asked.pop(row, None)
        kv = self._batch()
        before = len(kv.rows)
        keep = kv.drop(set(rows))
        if len(keep) == before:
            return
        if self._sampler is not None:
            self._sampler.keep(keep)
        if not keep or self._pending is None:
            self._pending = None
            return
        drawn, fresh = self._pending.drawn, self._pending.fresh
        drawn = Drawn(drawn.tokens[mx.array(keep)], drawn.asked, drawn.chosen, drawn.best_ids, drawn.best)
        self._pending = _Pending(drawn, [fresh[index] for index in keep])

    def reset(self) -> None:
        """Forget all rows."""
        self._pending = None
        self._copies = []
        self._asked.clear()
        if self._loaded is not None:
            self._kv = KvBatch(self._loaded.model, self._room, self._make_copies)
            self._sampler = Sampler(self._loaded.facts.vocab_size)
        mx.clear_cache()

    def memory(self) -> Memory:
        """Bytes on the device."""
        return Memory(mx.get_active_memory(), mx.get_peak_memory(), mx.get_cache_memory())

    def sweep(self) -> None:
        """Return cached buffers, and evaluate what the caches keep lazily."""
        if self._kv is not None:
            self._kv.settle()
        mx.clear_cache()

    def close(self) -> None:
        """Free the streams of this thread; MLX aborts at exit if they live on."""
        self._kv = self._sampler = self._pending = self._loaded = None
        mx.clear_streams()

    def _make_copies(self) -> None:
        """A copy still to be made holds on to all the rows of its batch: it must not outlive a change of them."""
        launch(self._copies)
        self._copies = []

    def _batch(self) -> KvBatch:
        if self._kv is None:
            raise RuntimeFault(Code.NOT_LOADED, "no model is loaded")
        return self._kv


def _drawer(asked: Generate) -> Drawer:
    seed = fresh_seed() if asked.sampling.seed is None else asked.sampling.seed
    return Drawer(asked.row, asked.sampling, seed, asked.top_logprobs, asked.ids, asked.generated)
