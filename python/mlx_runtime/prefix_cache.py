"""Which rows find their beginning in the prefix cache, and which leave theirs there. Pure: a backend makes the copies.

It owns what is worth keeping, when a row is asked for it, and the counts the agent sees; it refuses rows without a
salt, which neither read nor write. The entries themselves are the index's.

A row leaves its sequence twice: once its prompt is computed, so that others with the same beginning need not wait for
its answer, and at its end, with the answer. Both only if enough of it is new. A model whose cache cannot be cut serves
an entry only to sequences that begin with all of it, so for such a model the copies are made on the way through the
prompt, at marks: the last whole block of the prompt, for the next turn of the conversation, and the place where the
prompt leaves what others were asked before, for the next one that begins like them.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from mlx_runtime.limits import PREFIX_BLOCK_TOKENS, PREFIX_KEEP_TOKENS_MIN
from mlx_runtime.prefix_index import Chain, PrefixIndex
from mlx_runtime.protocol import Generate


class Reuse(StrEnum):
    """What a kept KV cache of a model can be used for."""

    CUT = "cut"  # any prefix of its sequence
    WHOLE = "whole"  # its whole sequence only: sliding windows have forgotten the earlier states
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Kept:
    """A copy of a row's KV cache, opaque here, and the bytes it takes."""

    held: object
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a row begins with: `held` covers its first `cached` tokens. Its prefill stops at each of `marks`."""

    cached: int = 0
    held: object = None
    marks: tuple[int, ...] = ()


@dataclass(slots=True)
class _Live:
    """A row's sequence so far. `last` is the end of its prompt until the prompt is computed."""

    chain: Chain
    last: int
    prompt_tokens: int


# A copy of the first `tokens` tokens of a row, if it takes no more than `bytes_max`.
Keep = Callable[[int, int, int], Kept | None]


class PrefixCache:
    """The prefix cache of one loaded model."""

    def __init__(self, bytes_max: int, reuse: Reuse, keep: Keep) -> None:
        self._bytes_max = bytes_max
        self._reuse = reuse
        self._copy = keep
        self._index = PrefixIndex(bytes_max, reuse is Reuse.CUT)
        self._live: dict[int, _Live] = {}
        self._hits = self._misses = self._hit_tokens = self._query_tokens = 0

    def offer(self, asked: Generate) -> int:
        """A row waits. The tokens it would find if it began now."""
        if asked.cache_salt is None or self._bytes_max == 0 or self._reuse is Reuse.NONE:
            return 0
        # One token is always left to feed, or there would be nothing to draw the first token from.
        chain = Chain(asked.cache_salt, asked.ids[:-1])
        self._live[asked.row] = _Live(chain, asked.ids[-1], len(asked.ids))
        return self._index.usable(chain.blocks) * PREFIX_BLOCK_TOKENS

    def begin(self, row: int) -> Found:
        """A row leaves the waiting room."""
        live = self._live.get(row)
        if live is None:
            return Found()
        depth, held = self._index.find(live.chain.blocks)
        self._hits += depth > 0
        self._misses += depth == 0
        self._hit_tokens += depth * PREFIX_BLOCK_TOKENS
        self._query_tokens += live.prompt_tokens
        marks = self._marks(live.chain.blocks, depth) if self._reuse is Reuse.WHOLE else ()
        return Found(depth * PREFIX_BLOCK_TOKENS, held, marks)

    def reached(self, row: int, tokens: int) -> None:
        """The first `tokens` tokens of a prompt are computed, up to a mark."""
        live = self._live.get(row)
        if live is not None:
            self._keep(row, live, tokens)

    def prefilled(self, row: int) -> None:
        """A prompt is computed but for its last token, which comes next."""
        live = self._live.get(row)
        if live is not None:
            self._keep(row, live, live.chain.tokens)
            live.chain.extend((live.last,))

    def took(self, row: int, token: int) -> None:
        """A token of the answer, which the row's cache holds too."""
        live = self._live.get(row)
        if live is not None:
            live.chain.extend((token,))

    def ended(self, row: int) -> None:
        """A row past its prompt ends, and the backend still has it."""
        live = self._live.pop(row, None)
        if live is not None:
            self._keep(row, live, live.chain.tokens)

    def forget(self, row: int) -> None:
        """A row is gone and leaves nothing."""
        self._live.pop(row, None)

    def restart(self, waiting: Collection[int]) -> None:
        """Let go of every copy and of every row but those that wait; the counts stay."""
        self._index.clear()
        self._live = {row: live for row, live in self._live.items() if row in waiting}

    def facts(self) -> dict[str, object]:
        """The counts since the model was loaded."""
        return {
            "entries": len(self._index),
            "bytes": self._index.size,
            "hits": self._hits,
            "misses": self._misses,
            "hit_tokens": self._hit_tokens,
            "query_tokens": self._query_tokens,
        }

    def _keep(self, row: int, live: _Live, tokens: int) -> None:
        if self._reuse is Reuse.WHOLE and tokens % PREFIX_BLOCK_TOKENS:
            return
        blocks = live.chain.blocks[: tokens // PREFIX_BLOCK_TOKENS]
        if (len(blocks) - self._index.usable(blocks)) * PREFIX_BLOCK_TOKENS < PREFIX_KEEP_TOKENS_MIN:
            return
        kept = self._copy(row, len(blocks) * PREFIX_BLOCK_TOKENS, self._bytes_max)
        if kept is not None:
            self._index.put(blocks, kept.held, kept.size)

    def _marks(self, blocks: list[bytes], found: int) -> tuple[int, ...]:
        marks: list[int] = []
        for mark in (self._index.known(blocks), len(blocks)):
            if (mark - found) * PREFIX_BLOCK_TOKENS >= PREFIX_KEEP_TOKENS_MIN:
                marks.append(mark * PREFIX_BLOCK_TOKENS)
                found = mark
        return tuple(marks)
