"""A load that goes on while something is done to the room: one answer after another at some gateways, each is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from cluster.client import Answer, stream
from cluster.harness import until


class Load:
    """So many lines, spread over the gateways; line after line a new answer until it is told to stop."""

    def __init__(self, gateways: Sequence[str], lines: int, body: Callable[[int], dict[str, Any]]) -> None:
        self.gateways = list(gateways)
        self.answers: list[Answer] = []
        self._body = body
        self._stop = threading.Event()
        # A test that fails stops nothing, and is to end all the same.
        self._threads = [threading.Thread(target=self._line, args=(number,), daemon=True) for number in range(lines)]
        for thread in self._threads:
            thread.start()

    def _line(self, number: int) -> None:
        while not self._stop.is_set():
            gateways = self.gateways
            self.answers.append(asyncio.run(stream(gateways[number % len(gateways)], self._body(number))))

    def more(self, count: int) -> None:
        wanted = len(self.answers) + count
        until(f"{count} more answers", lambda: len(self.answers) >= wanted)

    def stop(self) -> list[Answer]:
        """Returns when all have their ends."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.answers
