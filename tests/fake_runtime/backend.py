"""A backend that waits instead of computing, and fails where its faults say.

It owns the clock model: a decode step of n rows over k tokens of KV cache takes `t1 * (1 + beta * (n - 1)) + kappa * k`
seconds, a prompt its length without what is cached over the prefill rate; prompts that are read in one call are padded
to the longest of them, as the real ones are; a step that does both takes the sum. Copies for the prefix cache take
bytes and no time. It refuses MLX, mlx-lm and transformers, so that it starts in the time Python takes.
"""

import secrets
import time
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, cast

from fake_runtime.faults import Faults, Sent, marked
from fake_runtime.knobs import Knobs
from fake_runtime.words import Answer, Unit, answer_to, plain, spelled
from mlx_runtime.backend import Logprob, Memory, ModelFacts, Sampled, Start
from mlx_runtime.batch import Chunk
from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.folder import ModelFolder, open_folder, text_config
from mlx_runtime.limits import PROGRESS_S
from mlx_runtime.outbox import Outbox
from mlx_runtime.prefix_cache import Kept, Reuse
from mlx_runtime.protocol import Generate, Load

_DTYPE_BYTES = {"float32": 4, "float64": 8}


@dataclass(eq=False)
class _Copy:
    """Stands for the copy of a row's beginning; gone when nobody holds it, as its memory would be."""

    size: int


@dataclass(slots=True)
class _Row:
    """A row, its answer, and what is told of that: by an earlier row, then by this one."""

    asked: Generate
    answer: Answer
    sent: Sent
    told: list[int] = field(default_factory=list[int])


class FakeBackend:
    """See `mlx_runtime.backend.Backend`."""

    def __init__(
        self,
        knobs: Callable[[], Knobs],
        outbox: Outbox,
        sleep: Callable[[float], None] = time.sleep,
        strike: Callable[[], bool] = lambda: True,
    ) -> None:
        self._knobs = knobs
        self._faults = Faults(knobs, outbox, strike)
        self._sleep = sleep
        self._facts: ModelFacts | None = None
        self._folder: ModelFolder | None = None
        self._units: list[Unit] = [(0,)]
        self._rows: dict[int, _Row] = {}
        self._decoding: list[int] = []
        self._copies: weakref.WeakSet[_Copy] = weakref.WeakSet()
        self._tokenizer: Any = None

    def versions(self) -> dict[str, object]:
        """The same keys as the real one."""
        return {"mlx": "none", "mlx_lm": "none", "python": "fake", "device": "fake"}

    def prepare(self) -> None:
        """Nothing to import."""

    def load(self, spec: Load, progress: Callable[[float], None]) -> ModelFacts:
        """Read the folder's facts, and take as long as asked."""
        folder, knobs = open_folder(spec.path), self._knobs()
        self._faults.in_load()
        steps = max(1, int(knobs.load_s * knobs.slow / (PROGRESS_S / 2)))
        for step in range(steps):
            progress(step / steps)
            self._wait(knobs.load_s / steps)
        self._units = spelled(folder.path) if knobs.spelled else plain(folder.path, folder.vocab_size, folder.eos_ids)
        self._folder, self._facts = folder, _facts(folder)
        if knobs.context:
            self._facts = replace(self._facts, context_length=knobs.context)
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
            self._faults.on_start(asked)
            seed = secrets.randbits(64) if asked.sampling.seed is None else asked.sampling.seed
            answer = answer_to(asked, seed, self._units)
            self._rows[asked.row] = _Row(asked, answer, Sent(asked), list(asked.replayed))

    def prefill(self, chunks: list[Chunk]) -> None:
        """Wait."""
        self._faults.on_prefill([self._rows[chunk.row].asked for chunk in chunks])
        if self._knobs().prefill_tps:
            self._wait(len(chunks) * max(chunk.count for chunk in chunks) / self._knobs().prefill_tps)

    def promote(self, rows: list[int]) -> None:
        """Rows join the decode batch."""
        self._decoding += rows

    def decode(self) -> Sampled:
        """Wait, then one token for each row."""
        rows, knobs = {number: self._rows[number] for number in self._decoding}, self._knobs()
        sent = [row.sent for row in rows.values()]
        self._faults.before_step(sent)
        self._wait(
            _step_s(rows.values(), knobs) * (knobs.slow_factor if self._faults.due(knobs.slow_after, sent) else 1)
        )
        sampled = Sampled()
        for number, row in rows.items():
            token = self._token(row, knobs)
            row.told.append(token)
            sampled.rows.append(number)
            sampled.tokens.append(token)
            wanted = row.asked.top_logprobs
            if wanted is not None:
                sampled.logprobs[number] = self._logprob(token, wanted)
        self._faults.sent(sent)
        return sampled

    def keep(self, row: int, tokens: int, bytes_max: int) -> Kept | None:
        """As many bytes as the real one."""
        size = tokens * self._facts.kv_bytes_per_token if self._facts else 0
        if row not in self._rows or size > bytes_max:
            return None
        held = _Copy(size)
        self._copies.add(held)
        return Kept(held, size)

    def drop(self, rows: list[int]) -> None:
        """Forget rows."""
        for row in rows:
            self._rows.pop(row, None)
        self._decoding = [row for row in self._decoding if row in self._rows]

    def reset(self) -> None:
        """Forget all rows."""
        self._rows.clear()
        self._decoding.clear()

    def memory(self) -> Memory:
        """What the real one would hold."""
        if self._facts is None:
            return Memory()
        rows = sum(len(row.asked.ids) for row in self._rows.values()) * self._facts.kv_bytes_per_token
        held = self._facts.weights_bytes + rows + sum(one.size for one in self._copies)
        return Memory(held, held, 0)

    def sweep(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to free."""

    def marked(self, row: int) -> bool:
        """Whether faults may touch a row the backend has."""
        return row in self._rows and marked(self._rows[row].asked, self._knobs())

    def word(self) -> int:
        """A token that is part of some answer."""
        return self._units[0][0]

    def _token(self, row: _Row, knobs: Knobs) -> int:
        vocab_size, eos_ids = (self._facts.vocab_size, self._facts.eos_ids) if self._facts else (0, ())
        if eos_ids and len(row.told) + 1 == knobs.eos_after:
            return min(row.asked.stop_ids, default=eos_ids[0])
        token = row.answer.token(row.told)
        if self._faults.due(knobs.outside_after, [row.sent]):
            return vocab_size + token
        return self._another(token) if self._faults.due(knobs.lie_after, [row.sent]) else token

    def _another(self, token: int) -> int:
        among = sorted({one for unit in self._units for one in unit})
        return among[(among.index(token) + 1) % len(among)]

    def _logprob(self, token: int, wanted: int) -> Logprob:
        others = [unit[0] for unit in self._units[: wanted + 1] if unit[0] != token]
        return -0.5, [(one, -0.5 - rank) for rank, one in enumerate([token, *others][:wanted])]

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds * self._knobs().slow)


def _step_s(rows: Collection[_Row], knobs: Knobs) -> float:
    tokens = sum(len(row.asked.ids) + row.sent.tokens for row in rows)
    return knobs.t1_s * (1.0 + knobs.beta * (len(rows) - 1)) + knobs.kappa * tokens


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
