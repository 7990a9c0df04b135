"""The codes a question or a row can fail with, and the one exception that carries them.

It refuses free-form codes: what is not listed here cannot be sent.
"""

from enum import StrEnum


class Code(StrEnum):
    """The codes of the frame contract."""

    BAD_FRAME = "bad_frame"
    INVALID_REQUEST = "invalid_request"
    DUPLICATE_ROW = "duplicate_row"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    NOT_LOADED = "not_loaded"
    ALREADY_LOADED = "already_loaded"
    MODEL_NOT_FOUND = "model_not_found"
    UNSUPPORTED_MODEL = "unsupported_model"
    BUSY = "busy"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"
    SLOW_READER = "slow_reader"


class RuntimeFault(Exception):
    """A failure with a code, told to the agent; `text` never holds a prompt or an answer."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class DeviceLost(Exception):
    """The GPU or the ring between ranks is gone; only a new process can go on."""


def verdict(error: Exception) -> Code:
    """What an exception out of the backend means for the rows it took along.

    Raises `DeviceLost` for a GPU command buffer that failed (it poisons the stream) and for a lost ring peer.
    """
    text = str(error)
    if isinstance(error, RuntimeFault):
        return error.code
    if isinstance(error, RuntimeError) and ("[METAL]" in text or "[ring]" in text):
        raise DeviceLost(text) from error
    if isinstance(error, MemoryError) or "malloc" in text or "out of memory" in text.lower():
        return Code.OUT_OF_MEMORY
    return Code.INTERNAL
