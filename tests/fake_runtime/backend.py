"""A backend that waits instead of computing, and fails where its knobs say.

It owns the clock model: a decode step of n rows over k tokens of KV cache takes `t1 * (1 + beta * (n - 1)) + kappa * k`
seconds, a prompt its length without what is cached over the prefill rate; prompts that are read in one call are padded
to the longest of them, as the real ones are; a step that does both takes the sum. Copies for the prefix cache take
bytes and no time. It refuses MLX, mlx-lm and transformers, so that it starts in the time Python takes.
"""

import os
import resource
import signal
import struct
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from fake_runtime.knobs import Knobs
from fake_runtime.words import choices, fingerprint, token_at
from mlx_runtime.backend import Logprob, Memory, ModelFacts, Sampled, Start
from mlx_runtime.batch import Chunk
from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.folder import ModelFolder, open_folder, text_config
from mlx_runtime.limits import PROGRESS_S
from mlx_runtime.outbox import Outbox
from mlx_runtime.prefix_cache import Kept, Reuse
from mlx_runtime.protocol import Generate, Load

_FLUSH_S = 5.0
_DTYPE_BYTES = {"float32": 4, "float64": 8}


@dataclass(eq=False)
class _Copy:
    """Stands for the copy of a row's beginning; gone when nobody holds it, as its memory would be."""

    size: int


class FakeBackend:
    """See `mlx_runtime.backend.Backend`."""

    def __init__(self, knobs: Knobs, outbox: Outbox, sleep: Callable[[float], None] = time.sleep) -> None:
        self._knobs = knobs
        self._outbox = outbox
        self._sleep = sleep
        self._facts: ModelFacts | None = None
        self._folder: ModelFolder | None = None
        self._among: list[int] = [0]
        self._asked: dict[int, tuple[Generate, bytes]] = {}
        self._decoding: dict[int, int] = {}
        self._copies: weakref.WeakSet[_Copy] = weakref.WeakSet()
        self._sent = 0
        self._garbage_sent = False
        self._tokenizer: Any = None

    def versions(self) -> dict[str, object]:
        """The same keys as the real one."""
        return {"mlx": "none", "mlx_lm": "none", "python": "fake", "device": "fake"}

    def prepare(self) -> None:
        """Nothing to import."""

    def load(self, spec: Load, progress: Callable[[float], None]) -> ModelFacts:
        """Read the folder's facts, and take as long as asked."""
        folder = open_folder(spec.path)
        steps = max(1, int(self._knobs.load_s * self._knobs.slow / (PROGRESS_S / 2)))
        for step in range(steps):
            progress(step / steps)
            self._wait(self._knobs.load_s / steps)
        self._folder = folder
        self._among = choices(folder.path, folder.vocab_size, folder.eos_ids)
        self._facts = _facts(folder)
        if self._knobs.context:
            self._facts = replace(self._facts, context_length=self._knobs.context)
        return self._facts

    def unload(self) -> None:
        """Forget the folder."""
        self._facts = self._folder = self._tokenizer = None
        self.reset()

    def tokenize(self, text: str, special: bool) -> list[int]:
        """With the folder's own tokenizer."""
        if self._folder is None:
            raise RuntimeFault(Code.NOT_LOADED, "no model is loaded")
        if self._tokenizer is None:
            from tokenizers import Tokenizer  # noqa: PLC0415 - few tests ask, and the import would double the start

            self._tokenizer = Tokenizer.from_file(str(self._folder.path / "tokenizer.json"))
        return cast(list[int], self._tokenizer.encode(text, add_special_tokens=special).ids)

    def reuse(self) -> Reuse:
        """Nothing is computed, so nothing can be wrong."""
        return Reuse.CUT

    def start(self, rows: list[Start]) -> None:
        """Rows enter prefill."""
        for asked in (row.asked for row in rows):
            if self._knobs.crash_token and self._knobs.crash_token in asked.ids:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                os.kill(os.getpid(), signal.SIGABRT)
            self._asked[asked.row] = asked, fingerprint(asked.ids)

    def prefill(self, chunks: list[Chunk]) -> None:
        """Wait."""
        if self._knobs.fail_token and any(self._knobs.fail_token in self._asked[c.row][0].ids for c in chunks):
            raise RuntimeError("a fault was asked for")
        if self._knobs.prefill_tps:
            self._wait(len(chunks) * max(chunk.count for chunk in chunks) / self._knobs.prefill_tps)

    def promote(self, rows: list[int]) -> None:
        """Rows join the decode batch."""
        self._decoding.update((row, 0) for row in rows)

    def decode(self) -> Sampled:
        """Wait, then one token for each row."""
        self._fail_if_due()
        knobs, width = self._knobs, len(self._decoding)
        self._wait(knobs.t1_s * (1.0 + knobs.beta * (width - 1)) + knobs.kappa * self._kv_tokens())
        sampled = Sampled()
        for row, position in self._decoding.items():
            token = self._token(row, position)
            sampled.rows.append(row)
            sampled.tokens.append(token)
            wanted = self._asked[row][0].top_logprobs
            if wanted is not None:
                sampled.logprobs[row] = self._logprob(token, wanted)
            self._decoding[row] = position + 1
        self._sent += width
        return sampled

    def keep(self, row: int, tokens: int, bytes_max: int) -> Kept | None:
        """As many bytes as the real one."""
        size = tokens * self._facts.kv_bytes_per_token if self._facts else 0
        if row not in self._asked or size > bytes_max:
            return None
        held = _Copy(size)
        self._copies.add(held)
        return Kept(held, size)

    def drop(self, rows: list[int]) -> None:
        """Forget rows."""
        for row in rows:
            self._asked.pop(row, None)
            self._decoding.pop(row, None)

    def reset(self) -> None:
        """Forget all rows."""
        self._asked.clear()
        self._decoding.clear()

    def memory(self) -> Memory:
        """What the real one would hold."""
        if self._facts is None:
            return Memory()
        rows = sum(len(asked.ids) for asked, _ in self._asked.values()) * self._facts.kv_bytes_per_token
        held = self._facts.weights_bytes + rows + sum(one.size for one in self._copies)
        return Memory(held, held, 0)

    def sweep(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to free."""

    def _token(self, row: int, position: int) -> int:
        asked, prompt = self._asked[row]
        if self._facts is not None and self._facts.eos_ids and position + 1 == self._knobs.eos_after:
            return min(asked.stop_ids, default=self._facts.eos_ids[0])
        token = token_at(prompt, position, self._among)
        if _due(self._knobs.lie_after, self._sent):
            return self._among[(self._among.index(token) + 1) % len(self._among)]
        return token

    def _kv_tokens(self) -> int:
        return sum(len(self._asked[row][0].ids) + position for row, position in self._decoding.items())

    def _logprob(self, token: int, wanted: int) -> Logprob:
        others = [one for one in self._among[: wanted + 1] if one != token]
        return -0.5, [(one, -0.5 - rank) for rank, one in enumerate([token, *others][:wanted])]

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds * self._knobs.slow)

    def _fail_if_due(self) -> None:
        knobs = self._knobs
        if _due(knobs.garbage_after, self._sent) and not self._garbage_sent:
            self._garbage_sent = True
            self._outbox.post(struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1")  # a byte msgpack never uses
        if _due(knobs.truncate_after, self._sent):
            self._outbox.post(struct.pack("<I", 4096) + b"\x94")
            self._leave(knobs.exit_status)
        if _due(knobs.exit_after, self._sent):
            self._leave(knobs.exit_status)
        if _due(knobs.hang_after, self._sent):
            threading.Event().wait()

    def _leave(self, status: int) -> None:
        self._outbox.wait_until_empty(_FLUSH_S)
        os._exit(status)


def _due(after: int, sent: int) -> bool:
    return 0 < after <= sent


def _facts(folder: ModelFolder) -> ModelFacts:
    text = text_config(folder.config)
    heads = int(text.get("num_attention_heads") or 1)
    width = int(text.get("head_dim") or int(text.get("hidden_size") or heads) // heads)
    cached = 2 * int(text.get("num_hidden_layers") or 1) * int(text.get("num_key_value_heads") or heads) * width
    return ModelFacts(
        model_type=folder.model_type,
        context_length=folder.context_length,
        parameters=folder.parameters,
        weights_bytes=folder.weights_bytes,
        kv_bytes_per_token=cached * _DTYPE_BYTES.get(folder.dtype, 2),
        kv_bytes_per_row=0,
        dtype=folder.dtype,
        vocab_size=folder.vocab_size,
        eos_ids=folder.eos_ids,
    )
