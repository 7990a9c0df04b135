"""The frame codec: any cut of the stream gives the same frames, and nothing garbled loses the next one."""

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from mlx_runtime.framing import Decoder, Frame, Garbled, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


def decoded(stream: bytes, cuts: list[int], frame_bytes_max: int = 1 << 20) -> list[Frame | Garbled]:
    """Feed a stream in pieces."""
    decoder, edges = Decoder(frame_bytes_max), sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [item for start, end in itertools.pairwise(edges) for item in decoder.feed(stream[start:end])]


@given(st.lists(VALUES, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_stream_cut_anywhere_gives_the_frames_that_went_in(values: list[object], cuts: list[int]) -> None:
    stream = b"".join(encode(value) for value in values)
    items = decoded(stream, cuts)
    assert [item.value for item in items if isinstance(item, Frame)] == values
    assert sum(item.size for item in items if isinstance(item, Frame)) == len(stream)


@given(st.integers(1, 5000), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_frame_over_the_limit_is_thrown_away_and_the_next_is_read(extra: int, cuts: list[int]) -> None:
    length = 100 + extra
    stream = encode(["a"]) + struct.pack("<I", length) + b"\xc1" * length + encode(["b"])
    first, garbled, last = decoded(stream, cuts, frame_bytes_max=100)
    assert isinstance(first, Frame)
    assert isinstance(garbled, Garbled)
    assert isinstance(last, Frame)
    assert (first.value, last.value) == (["a"], ["b"])


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=4))
def test_any_body_is_a_value_or_garbled_and_never_loses_the_next_frame(body: bytes, cuts: list[int]) -> None:
    items = decoded(struct.pack("<I", len(body)) + body + encode(7), cuts)
    assert len(items) == 2
    assert isinstance(items[1], Frame)
    assert items[1].value == 7


def test_a_frame_of_the_greatest_length_is_read() -> None:
    stream = encode(b"x" * 95)
    (item,) = decoded(stream, [], frame_bytes_max=len(stream) - 4)
    assert isinstance(item, Frame)


def test_an_array_that_claims_more_elements_than_any_prompt_has_is_garbled() -> None:
    (item,) = decoded(struct.pack("<I", 5) + b"\xdd\x7f\xff\xff\xff", [])
    assert isinstance(item, Garbled)


def test_an_array_nested_past_reason_is_garbled() -> None:
    body = b"\x91" * 5000 + b"\x00"
    (item,) = decoded(struct.pack("<I", len(body)) + body, [])
    assert isinstance(item, Garbled)
