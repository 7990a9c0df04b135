"""Breaks a fake runtime where a knob says. It owns when a fault is due and what it does to the process or a token.

It refuses to know the model and the clock; faults of frames rather than of computing are the loop's.
"""

import os
import resource
import struct
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, NoReturn

from fake_runtime.knobs import Knobs
from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.outbox import Outbox
from mlx_runtime.protocol import Generate

_FLUSH_S: Final = 5.0


@dataclass(slots=True)
class Sent:
    """How many tokens a row has sent."""

    asked: Generate
    tokens: int = 0


class Faults:
    """The faults of one process."""

    def __init__(self, knobs: Callable[[], Knobs], outbox: Outbox, strike: Callable[[], bool] = lambda: True) -> None:
        self._knobs = knobs
        self._strike = strike
        self._outbox = outbox
        self._sent = 0
        self._garbage_sent = False

    def in_load(self) -> None:
        """As `load` begins."""
        match self._knobs().load_fault:
            case "":
                return
            case "hang":
                _hang()
            case "abort":
                self._abort()
            case code:
                raise RuntimeFault(Code(code), "a fault was asked for")

    def on_start(self, asked: Generate) -> None:
        """As a row begins."""
        token = self._knobs().crash_token
        if token and token in asked.ids and self._strike():
            self._abort()

    def on_prefill(self, rows: Collection[Generate]) -> None:
        """As prompts are computed."""
        token = self._knobs().fail_token
        if token and any(token in asked.ids for asked in rows) and self._strike():
            raise RuntimeError("a fault was asked for")

    def before_step(self, rows: Collection[Sent]) -> None:
        """As a decode step begins."""
        knobs = self._knobs()
        if not self._garbage_sent and self._strikes(knobs.garbage_after, rows):
            self._garbage_sent = True
            self._outbox.post(struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1")  # a byte msgpack never uses
        if self._strikes(knobs.truncate_after, rows):
            self._outbox.post(struct.pack("<I", 4096) + b"\x94")
            self._leave(knobs.exit_status)
        if self._strikes(knobs.exit_after, rows):
            self._leave(knobs.exit_status)
        if self._strikes(knobs.abort_after, rows):
            self._abort()
        if self._strikes(knobs.fail_after, rows):
            raise RuntimeError("a fault was asked for")
        if self._strikes(knobs.hang_after, rows):
            _hang()

    def due(self, after: int, rows: Collection[Sent]) -> bool:
        """Whether so many tokens are sent, as the knobs count."""
        return after > 0 and any(after <= self._count(row) for row in rows)

    def sent(self, rows: Collection[Sent]) -> None:
        """A step sends a token of each row."""
        self._sent += len(rows)
        for row in rows:
            row.tokens += 1

    def _strikes(self, after: int, rows: Collection[Sent]) -> bool:
        return self.due(after, rows) and self._strike()

    def _count(self, row: Sent) -> int:
        knobs = self._knobs()
        if knobs.mark_token == 0:
            return self._sent
        return row.tokens if marked(row.asked, knobs) else 0

    def _abort(self) -> NoReturn:
        self._outbox.wait_until_empty(_FLUSH_S)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()

    def _leave(self, status: int) -> NoReturn:
        self._outbox.wait_until_empty(_FLUSH_S)
        os._exit(status)


def marked(asked: Generate, knobs: Knobs) -> bool:
    """Whether a row is one the faults may touch."""
    return knobs.mark_token == 0 or knobs.mark_token in asked.ids[: asked.prompt_tokens]


def _hang() -> NoReturn:
    while True:
        threading.Event().wait()
