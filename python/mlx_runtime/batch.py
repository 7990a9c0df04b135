"""Which rows wait, prefill and decode, and how many prompt tokens each may compute in this step. Pure.

It owns the waiting room, the width of the batch, the prefill budget and the counts of every row; it refuses clocks,
sockets and MLX. Identical calls give identical answers.

The rules of admission, each numbered where it is applied:
1. At most `max_rows` rows hold KV cache, prefilling and decoding together.
2. At most eight of them prefill, so that padding stays small.
3. At most four of those need more than one chunk, so that a short prompt never waits behind eight long ones. A long
   prompt whose beginning is cached is a short one.
4. Oldest first among those the rules let in. Nobody starves: the oldest long prompt gets the next place of a long one.

The budget: rows prefill side by side in one padded call, so a step computes `rows x longest share` tokens. Every row's
share is the chunk divided by the rows, and that product never exceeds the chunk (but for one token each when there are
more rows than tokens).
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from mlx_runtime.errors import Code
from mlx_runtime.limits import PREFILL_LONG_ROWS_MAX, PREFILL_ROWS_MAX, WAITING_ROWS_MAX


class State(StrEnum):
    """Where a row is."""

    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"


class Finish(StrEnum):
    """Why a row ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(slots=True)
class Row:
    """The counts of one sequence.

    `prompt_done` are the prompt tokens in its KV cache, `cached` those of them nobody had to compute: an estimate until
    the row leaves the waiting room. Prefill stops at each of `marks`. The last `replayed` of the prompt tokens are the
    beginning of the answer: computed like a prompt, and told to the agent as none. `generated` are this row's own.
    """

    row: int
    prompt_tokens: int
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    prompt_done: int = 0
    generated: int = 0
    state: State = State.QUEUED
    arrived_at: float = 0.0
    queued_s: float = 0.0
    prefill_s: float = 0.0
    cached: int = 0
    marks: tuple[int, ...] = ()
    replayed: int = 0

    def begin(self, cached: int, marks: tuple[int, ...]) -> None:
        """The first tokens are in the KV cache."""
        self.cached = self.prompt_done = cached
        self.marks = marks

    def closing(self) -> dict[str, object]:
        """What the last frame of the row tells about it."""
        prompt_tokens = self.prompt_tokens - self.replayed
        return {
            "generated": self.generated,
            "prompt_tokens": prompt_tokens,
            "cached_tokens": min(self.cached, prompt_tokens) if self.state is not State.QUEUED else 0,
            "queued_s": self.queued_s,
            "prefill_s": self.prefill_s,
        }

    @property
    def stretch(self) -> int:
        """Tokens to prefill before the next mark or the end."""
        to_mark = next((mark - self.prompt_done for mark in self.marks if mark > self.prompt_done), self.prefill_left)
        return min(to_mark, self.prefill_left)

    @property
    def prefill_left(self) -> int:
        """Tokens to prefill; the last prompt token is fed by the first decode step."""
        return self.prompt_tokens - 1 - self.prompt_done


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prompt tokens `start` to `start + count` of a row."""

    row: int
    start: int
    count: int


@dataclass(slots=True)
class Batch:
    """All rows of the loaded model."""

    max_rows: int
    prefill_chunk: int
    waiting_max: int = WAITING_ROWS_MAX
    _rows: OrderedDict[int, Row] = field(default_factory=OrderedDict[int, Row])

    def offer(self, row: Row) -> Code | None:
        """Put a row into the waiting room, or say why not."""
        if row.row in self._rows:
            return Code.DUPLICATE_ROW
        if self.queued >= self.waiting_max:
            return Code.BUSY
        self._rows[row.row] = row
        return None

    def admit(self) -> list[Row]:
        """Move rows from the waiting room into prefill; those moved."""
        prefilling = self._in(State.PREFILL)
        running = len(prefilling) + self.decoding
        long = sum(self._is_long(row) for row in prefilling)
        admitted: list[Row] = []
        for row in self._in(State.QUEUED):  # 4. oldest first
            if running >= self.max_rows:  # 1.
                break
            if len(prefilling) + len(admitted) >= PREFILL_ROWS_MAX:  # 2.
                break
            if self._is_long(row):
                if long >= PREFILL_LONG_ROWS_MAX:  # 3.
                    continue
                long += 1
            row.state = State.PREFILL
            running += 1
            admitted.append(row)
        return admitted

    def plan(self) -> list[Chunk]:
        """The prompt tokens to compute in this step."""
        rows = [row for row in self._in(State.PREFILL) if row.prefill_left > 0]
        if not rows:
            return []
        share = max(1, self.prefill_chunk // len(rows))
        return [Chunk(row.row, row.prompt_done, min(share, row.stretch)) for row in rows]

    def advance(self, chunks: list[Chunk], seconds: float) -> None:
        """The planned tokens are in the cache; `seconds` is what the call took, an equal part of it for each row."""
        for chunk in chunks:
            row = self._rows[chunk.row]
            row.prompt_done += chunk.count
            row.prefill_s += seconds / len(chunks)

    def promote(self) -> list[int]:
        """Move rows whose prompt is computed into the decode batch; those moved, oldest first."""
        ready = [row for row in self._in(State.PREFILL) if row.prefill_left <= 0]
        for row in ready:
            row.state = State.DECODE
            row.prompt_done = row.prompt_tokens
        return [row.row for row in ready]

    def took(self, row: Row, token: int) -> Finish | None:
        """Count a sampled token; how the row ends with it, if it does."""
        row.generated += 1
        if token in row.stop_ids:
            return Finish.STOP
        if row.generated >= row.max_tokens:
            return Finish.LENGTH
        return None

    def end(self, row: int) -> Row | None:
        """Forget a row; its last counts, or None if it is unknown."""
        return self._rows.pop(row, None)

    def get(self, row: int) -> Row | None:
        """A live row."""
        return self._rows.get(row)

    def rows(self) -> list[Row]:
        """All live rows, oldest first."""
        return list(self._rows.values())

    @property
    def queued(self) -> int:
        """Rows in the waiting room."""
        return sum(row.state is State.QUEUED for row in self._rows.values())

    @property
    def prefilling(self) -> int:
        """Rows in prefill."""
        return sum(row.state is State.PREFILL for row in self._rows.values())

    @property
    def decoding(self) -> int:
        """Rows in the decode batch."""
        return sum(row.state is State.DECODE for row in self._rows.values())

    @property
    def kv_tokens(self) -> int:
        """Tokens in the KV cache."""
        return sum(row.prompt_done + row.generated for row in self._rows.values() if row.state is not State.QUEUED)

    def _in(self, state: State) -> list[Row]:
        return [row for row in self._rows.values() if row.state is state]

    def _is_long(self, row: Row) -> bool:
        return row.prompt_tokens - 1 - row.cached > self.prefill_chunk
