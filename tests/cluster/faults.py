"""What goes wrong on a wire, and when: the settings of one direction, and decisions that depend on a seed alone.

Owns the fate of one datagram and of each block of a byte stream. A decision is a function of the seed, the wire, the
flow, the packet's number and the kind of fault; neither time nor what was decided before enters it, so the same packets
meet the same fate in every run, and switching one fault on moves no other. A byte stream has no packets: its unit is a
block of fixed length, however the system cuts its reads. It refuses sockets and clocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b

BLOCK_BYTES = 1_024


class Direction(StrEnum):
    """As seen from the client: up is towards the target."""

    UP = "up"
    DOWN = "down"


class Wire(StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Faults:
    """Of one direction of one wire. Shares are between 0 and 1; everything at rest is off."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # up to so much more, evenly spread; datagrams may overtake one another by it
    loss: float = 0.0  # datagrams vanish; a block of TCP comes late by `resend_s`, and with it all that follows
    resend_s: float = 0.2
    reorder: float = 0.0  # datagrams that the next one overtakes
    duplicate: float = 0.0  # datagrams that come twice
    shorten: float = 0.0  # datagrams whose end is missing
    flip: float = 0.0  # datagrams and blocks with one wrong bit
    cut_after: int = 0  # a connection ends (FIN) after exactly so many bytes of this direction
    reset_after: int = 0  # the same with RST
    bits_per_s: float = 0.0
    blocked: bool = False  # nothing passes: datagrams vanish, TCP keeps what it has until the way is free
    swallow: bool = False  # what arrives is taken and forgotten; a connection that lost bytes is reset afterwards


@dataclass(frozen=True, slots=True)
class Dice:
    """Chance for one direction of one flow."""

    seed: int
    flow: str

    def share(self, kind: str, number: int) -> float:
        """Between 0 and 1, evenly; the same for the same packet and kind."""
        digest = blake2b(f"{self.seed}/{self.flow}/{kind}/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2.0**64

    def hits(self, kind: str, number: int, chance: float) -> bool:
        return chance > 0.0 and self.share(kind, number) < chance


@dataclass(slots=True)
class Fate:
    """What becomes of one datagram: no copy, one or two, and when."""

    copies: list[bytes]
    delay_s: float = 0.0
    overtaken: bool = False


def fate(data: bytes, number: int, faults: Faults, dice: Dice, counts: Counter[str]) -> Fate:
    """Decides about one datagram, and counts what is done to it."""
    counts["arrived"] += 1
    if faults.blocked or faults.swallow:
        counts["blocked"] += 1
        return Fate([])
    if dice.hits("loss", number, faults.loss):
        counts["lost"] += 1
        return Fate([])
    if data and dice.hits("shorten", number, faults.shorten):
        counts["shortened"] += 1
        data = data[: int(dice.share("shorten at", number) * len(data))]
    if data and dice.hits("flip", number, faults.flip):
        counts["flipped"] += 1
        data = flipped(data, int(dice.share("flip at", number) * len(data) * 8))
    copies = [data]
    if dice.hits("duplicate", number, faults.duplicate):
        counts["duplicated"] += 1
        copies = [data, data]
    overtaken = dice.hits("reorder", number, faults.reorder)
    counts["overtaken"] += overtaken
    return Fate(copies, faults.delay_s + faults.jitter_s * dice.share("jitter", number), overtaken)


@dataclass(slots=True)
class Blocks:
    """One direction of one connection, cut into blocks by the offset of its bytes."""

    dice: Dice
    counts: Counter[str]
    offset: int = 0
    _late: set[int] = field(default_factory=set[int])

    def pieces(self, data: bytes, faults: Faults) -> Iterator[tuple[float, bytes]]:
        """The parts of `data` in order, each of one block, with the delay of its block."""
        while data:
            room = BLOCK_BYTES - self.offset % BLOCK_BYTES
            piece, data = data[:room], data[room:]
            yield self._delay_s(faults), self._spoilt(piece, faults)
            self.offset += len(piece)

    def _delay_s(self, faults: Faults) -> float:
        number = self.offset // BLOCK_BYTES
        delay_s = faults.delay_s + faults.jitter_s * self.dice.share("jitter", number)
        # A block that is read in several parts is late once.
        if number not in self._late and self.dice.hits("loss", number, faults.loss):
            self._late = {number}
            self.counts["late"] += 1
            delay_s += faults.resend_s
        return delay_s

    def _spoilt(self, piece: bytes, faults: Faults) -> bytes:
        number, within = divmod(self.offset, BLOCK_BYTES)
        if not self.dice.hits("flip", number, faults.flip):
            return piece
        bit = int(self.dice.share("flip at", number) * BLOCK_BYTES * 8) - within * 8
        if not 0 <= bit < len(piece) * 8:
            return piece
        self.counts["flipped"] += 1
        return flipped(piece, bit)


def flipped(data: bytes, bit: int) -> bytes:
    """With one bit turned."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
