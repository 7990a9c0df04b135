"""Which beginnings of token sequences are held, under which salt, and which of them go when room runs out. Pure.

It owns the hash chain, the search for the longest held prefix, and the bound in bytes. What is held is opaque; it
refuses to know tensors, rows and what is worth holding.

A sequence is cut into blocks, and the digest of a block covers the salt, every token before the block and the block
itself. So equal digests mean equal prefixes under one salt, and what is held under one salt is never found under
another: all that salts share is the room. The digests are long enough that nobody makes two collide.

An entry serves any of its prefixes if the cache of the model can be cut; otherwise only a sequence that begins with all
of it. Entries go whole, least recently used first.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from mlx_runtime.limits import PREFIX_BLOCK_TOKENS, PREFIX_ENTRIES_MAX

_DIGEST_BYTES: Final = 32
_BLOCK: Final = struct.Struct(f"<{PREFIX_BLOCK_TOKENS}Q")


class Chain:
    """The digests of the whole blocks of one sequence, which may grow."""

    def __init__(self, salt: str, ids: Sequence[int] = ()) -> None:
        self.blocks: list[bytes] = []
        named = salt.encode(errors="surrogatepass")
        self._before = hashlib.blake2b(named, digest_size=_DIGEST_BYTES, person=b"salt").digest()
        self._rest: list[int] = []
        self.extend(ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Tokens at the end."""
        self._rest.extend(ids)
        whole = len(self._rest) // PREFIX_BLOCK_TOKENS * PREFIX_BLOCK_TOKENS
        for start in range(0, whole, PREFIX_BLOCK_TOKENS):
            packed = _BLOCK.pack(*self._rest[start : start + PREFIX_BLOCK_TOKENS])
            self._before = hashlib.blake2b(self._before + packed, digest_size=_DIGEST_BYTES, person=b"block").digest()
            self.blocks.append(self._before)
        del self._rest[:whole]

    @property
    def tokens(self) -> int:
        """The length of the sequence."""
        return len(self.blocks) * PREFIX_BLOCK_TOKENS + len(self._rest)


@dataclass(frozen=True, slots=True)
class _Entry:
    blocks: tuple[bytes, ...]
    held: object
    size: int


class PrefixIndex:
    """Entries by the digest of their last block, which stands for the whole sequence."""

    def __init__(self, size_max: int, cuts: bool, entries_max: int = PREFIX_ENTRIES_MAX) -> None:
        self._size_max = size_max
        self._cuts = cuts
        self._entries_max = entries_max
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # least recently used first
        self._holders: dict[bytes, dict[bytes, None]] = {}  # of each block, the entries that have it
        self._size = 0

    def usable(self, blocks: Sequence[bytes]) -> int:
        """How many of these blocks an entry serves."""
        return _deepest(blocks, self._holders if self._cuts else self._entries)

    def known(self, blocks: Sequence[bytes]) -> int:
        """How many of these blocks an entry begins with, whether or not it can be cut there."""
        return _deepest(blocks, self._holders)

    def find(self, blocks: Sequence[bytes]) -> tuple[int, object]:
        """The most blocks an entry serves, and what it holds; the entry counts as used."""
        depth = self.usable(blocks)
        if not depth:
            return 0, None
        tail = next(reversed(self._holders[blocks[depth - 1]])) if self._cuts else blocks[depth - 1]
        self._entries.move_to_end(tail)
        return depth, self._entries[tail].held

    def put(self, blocks: Sequence[bytes], held: object, size: int) -> bool:
        """Hold a sequence; False if it is held already or larger than everything may be.

        Entries the new one can serve in place of are replaced by it, and the least recently used make room.
        """
        if not blocks or size > self._size_max or self.usable(blocks) == len(blocks):
            return False
        if self._cuts:
            for block in blocks:
                self._remove(block)
        while self._size + size > self._size_max or len(self._entries) >= self._entries_max:
            self._remove(next(iter(self._entries)))
        tail = blocks[-1]
        self._entries[tail] = _Entry(tuple(blocks), held, size)
        self._size += size
        for block in blocks:
            self._holders.setdefault(block, {})[tail] = None
        return True

    def clear(self) -> None:
        """Hold nothing."""
        self._entries.clear()
        self._holders.clear()
        self._size = 0

    @property
    def size(self) -> int:
        """The bytes all entries take."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, tail: bytes) -> None:
        entry = self._entries.pop(tail, None)
        if entry is None:
            return
        self._size -= entry.size
        for block in entry.blocks:
            holders = self._holders[block]
            del holders[tail]
            if not holders:
                del self._holders[block]


def _deepest(blocks: Sequence[bytes], table: Container[bytes]) -> int:
    return next((depth for depth in range(len(blocks), 0, -1) if blocks[depth - 1] in table), 0)
