"""Answers `tokenize` on a thread of its own, so that a long text does not hold up a decode step.

It refuses more than a few questions at a time: the agent has a tokenizer too, this one only settles doubts.
"""

import queue
import threading
from collections.abc import Callable

from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.limits import FRAME_BYTES_MAX, TOKENIZE_WAITING_MAX
from mlx_runtime.outbox import Outbox
from mlx_runtime.protocol import Tokenize, error_frame, reply_frame


class TokenizeDesk:
    """One thread with a bounded queue."""

    def __init__(self, encode: Callable[[str, bool], list[int]], outbox: Outbox) -> None:
        self._encode = encode
        self._outbox = outbox
        self._waiting: queue.Queue[Tokenize] = queue.Queue(TOKENIZE_WAITING_MAX)
        threading.Thread(target=self._run, name="tokenize", daemon=True).start()

    def ask(self, question: Tokenize) -> None:
        """Queue a question, or answer at once that there is no room."""
        try:
            self._waiting.put_nowait(question)
        except queue.Full:
            self._outbox.post(error_frame(question.call, Code.BUSY, f"{TOKENIZE_WAITING_MAX} texts wait already"))

    def _run(self) -> None:
        while True:
            question = self._waiting.get()
            self._outbox.post(self._answer(question))

    def _answer(self, question: Tokenize) -> bytes:
        try:
            frame = reply_frame(question.call, {"ids": self._encode(question.text, question.special)})
        except RuntimeFault as fault:
            return error_frame(question.call, fault.code, fault.text)
        except Exception as error:  # noqa: BLE001 - tokenizers raise what they like; one question fails, not the thread
            return error_frame(question.call, Code.INTERNAL, f"the tokenizer failed: {type(error).__name__}")
        if len(frame) > FRAME_BYTES_MAX:
            return error_frame(question.call, Code.INVALID_REQUEST, "the ids do not fit into one frame")
        return frame
