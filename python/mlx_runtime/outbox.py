"""Frames on their way to the agent: posting never blocks, and who posts can see that the agent reads too slowly.

The bound is kept by those who post, each in its own way: the engine ends its rows and stops giving signs of life, the
reader stops reading. So the overshoot is at most the answers to what was already read, and an agent that is told of a
row's end really hears it.
"""

import threading
from collections import deque

from mlx_runtime.limits import OUTBOX_BYTES_MAX


class Outbox:
    """A queue of encoded frames with one taker."""

    def __init__(self, bytes_max: int = OUTBOX_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._frames: deque[bytes] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def post(self, frame: bytes) -> None:
        """Queue a frame. Never blocks."""
        with self._changed:
            if not self._closed:
                self._frames.append(frame)
                self._bytes += len(frame)
                self._changed.notify_all()

    @property
    def over(self) -> bool:
        """More waits than may."""
        return self._bytes > self._bytes_max

    def wait_for_room(self) -> None:
        """Block until less waits than may. For the reader alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self.over or self._closed)

    def take(self) -> bytes | None:
        """All that waits, joined, up to the bound; blocks; None once closed and empty.

        The bytes count as waiting until `sent` is called.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._frames) or self._closed)
            if not self._frames:
                return None
            joined: list[bytes] = []
            size = 0
            while self._frames and (not joined or size + len(self._frames[0]) <= self._bytes_max):
                joined.append(self._frames.popleft())
                size += len(joined[-1])
            return b"".join(joined)

    def sent(self, size: int) -> None:
        """The socket took `size` bytes."""
        with self._changed:
            self._bytes -= size
            self._changed.notify_all()

    def close(self) -> None:
        """No more frames; what waits is still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_until_empty(self, wait_s: float) -> None:
        """Block until the socket took everything, or `wait_s` passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes == 0, wait_s)
