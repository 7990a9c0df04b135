"""The frame codec: a little-endian u32 byte length, then one msgpack value.

It owns the byte stream alone and keeps it in step: a frame over the limit is thrown away without being held, and a
frame that is not msgpack is reported, after which the next one is read as usual. It refuses to know verbs.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from mlx_runtime.limits import ARRAY_LEN_MAX, FRAME_BYTES_MAX, MAP_LEN_MAX

_codec = cast(Any, msgpack)  # it ships no types
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Garbled:
    """A frame that held no msgpack value, or was too long."""

    text: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded value and the bytes it took on the wire."""

    value: object
    size: int


def encode(value: object) -> bytes:
    """One frame ready to be written."""
    body = cast(bytes, _codec.packb(value, use_bin_type=True))
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Cuts a byte stream into frames; holds at most one frame and one read."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._held = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[Frame | Garbled]:
        """Take what the socket gave; yields each frame it completes, in order."""
        if self._skip:
            data = self._thrown_away(data)
        self._held += data
        while len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
            if length > self._frame_bytes_max:
                rest = bytes(self._held[_LENGTH.size :])
                self._held.clear()
                self._skip = length
                self._held += self._thrown_away(rest)
                yield Garbled(f"a frame of {length} bytes is over the limit of {self._frame_bytes_max}")
                continue
            end = _LENGTH.size + length
            if len(self._held) < end:
                return
            body = bytes(self._held[_LENGTH.size : end])
            del self._held[:end]
            yield _decoded(body)

    def _thrown_away(self, data: bytes) -> bytes:
        drop = min(self._skip, len(data))
        self._skip -= drop
        return data[drop:]


def _decoded(body: bytes) -> Frame | Garbled:
    try:
        value = _codec.unpackb(
            body, raw=False, strict_map_key=False, max_array_len=ARRAY_LEN_MAX, max_map_len=MAP_LEN_MAX
        )
    except Exception as error:  # noqa: BLE001 - msgpack raises a dozen types; every one means the same here
        return Garbled(f"not a msgpack value: {type(error).__name__}")
    return Frame(value, len(body) + _LENGTH.size)
