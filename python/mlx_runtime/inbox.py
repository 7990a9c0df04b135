"""What the reader hands to the engine thread: bounded, in order, never blocking the reader.

It refuses a message when a thousand wait or their bytes are too many; the reader answers `busy` for it. Cancels free
work, so they may use as much room again.
"""

import threading
from collections import deque

from mlx_runtime.limits import INBOX_BYTES_MAX, INBOX_MESSAGES_MAX
from mlx_runtime.protocol import Cancel, Message


class Inbox:
    """A bounded queue with one taker."""

    def __init__(self, messages_max: int = INBOX_MESSAGES_MAX, bytes_max: int = INBOX_BYTES_MAX) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._queue: deque[tuple[Message, int]] = deque()
        self._arrived = threading.Condition()

    def offer(self, message: Message, size: int) -> bool:
        """Queue a message that took `size` bytes on the wire; False if there is no room."""
        share = 2 if isinstance(message, Cancel) else 1
        with self._arrived:
            full = len(self._queue) >= self._messages_max * share or self._bytes + size > self._bytes_max * share
            if full and self._queue:
                return False
            self._queue.append((message, size))
            self._bytes += size
            self._arrived.notify()
            return True

    def take(self, wait_s: float) -> list[Message]:
        """Everything queued; waits at most `wait_s` for the first message."""
        with self._arrived:
            if not self._queue and wait_s > 0:
                self._arrived.wait(wait_s)
            taken = [message for message, _ in self._queue]
            self._queue.clear()
            self._bytes = 0
            return taken
