"""The shapes of frames: what is a message, what is a bad frame, and what is a row that cannot start."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_runtime.errors import Code
from mlx_runtime.framing import Decoder, Frame
from mlx_runtime.protocol import (
    BadFrame,
    Cancel,
    Generate,
    Info,
    ListRows,
    Load,
    Refused,
    Sampling,
    Shutdown,
    StepStats,
    Tokenize,
    Unload,
    error_frame,
    hello_frame,
    parse,
    progress_frame,
    reply_frame,
    step_frame,
)
from test_framing import VALUES

BODY: dict[str, Any] = {"ids": [1, 2], "max_tokens": 5, "sampling": {}, "stop_ids": [], "top_logprobs": None}


GOOD: list[tuple[list[object], object]] = [
    (["load", 1, {"path": "/m", "prefill_chunk": 64, "max_rows": 8}], Load(1, "/m", 64, 8)),
    (["load", 1, {"path": "/m", "later": True}], Load(1, "/m", 512, 32)),
    (["load", 1, {"path": "/m", "cache_bytes": 0}], Load(1, "/m", 512, 32, 0)),
    (["load", 1, {"path": "/m", "cache_bytes": 1 << 40, "max_rows": None}], Load(1, "/m", 512, 32, 1 << 40)),
    (["load", 1, {"path": "/m", "cache_bytes": 0, "kv_tokens": 32768}], Load(1, "/m", 512, 32, 0, 32768)),
    (["load", 1, {"path": "/m", "cache_bytes": 0, "kv_tokens": None}], Load(1, "/m", 512, 32, 0, None)),
    (["unload", 2], Unload(2)),
    (["cancel", [3, 4]], Cancel((3, 4))),
    (["cancel", []], Cancel(())),
    (["tokenize", 5, "héllo", True], Tokenize(5, "héllo", True)),
    (["list", 0], ListRows(0)),
    (["info", 2**64 - 1], Info(2**64 - 1)),
    (["shutdown", 7], Shutdown(7)),
    (["generate", 9, BODY], Generate(9, (1, 2), 5)),
    (["generate", 9, {"ids": [1], "max_tokens": 1}], Generate(9, (1,), 1)),
    (
        ["generate", 9, BODY | {"stop_ids": [2, 2], "top_logprobs": 0}],
        Generate(9, (1, 2), 5, Sampling(), frozenset({2}), 0),
    ),
    (
        ["generate", 9, BODY | {"cache_salt": "é" * 32, "prefill_chunk": 8192}],
        Generate(9, (1, 2), 5, cache_salt="é" * 32, prefill_chunk=8192),
    ),
    (["generate", 9, BODY | {"cache_salt": "", "prefill_chunk": None}], Generate(9, (1, 2), 5)),
    (["generate", 9, BODY | {"generated": 1}], Generate(9, (1, 2), 5, generated=1)),
    (["generate", 9, BODY | {"generated": None}], Generate(9, (1, 2), 5)),
]


@pytest.mark.parametrize(("frame", "message"), GOOD)
def test_a_frame_of_the_contract_is_its_message(frame: list[object], message: object) -> None:
    assert parse(frame) == message


def test_every_sampling_parameter_is_read() -> None:
    given_map = {
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.25,
        "repetition_penalty": 1.5,
        "presence_penalty": -2,
        "frequency_penalty": 0.5,
        "logit_bias": [[1, -100], [2, 0.5]],
        "seed": 2**64 - 1,
    }
    expected = Sampling(1.0, 0.5, 3, 0.25, 1.5, -2.0, 0.5, ((1, -100.0), (2, 0.5)), 2**64 - 1)
    assert parse(["generate", 1, BODY | {"sampling": given_map}]) == replace(Generate(1, (1, 2), 5), sampling=expected)


BAD: list[tuple[object, int | None]] = [
    ([], None),
    ("generate", None),
    ({}, None),
    (["hop", 1], 1),
    ([None], None),
    ([["load"], 1], 1),
    (["load", 4, {}], 4),
    (["load", 4, {"path": ""}], 4),
    (["load", 4, {"path": "/m\0"}], 4),
    (["load", 4, {"path": "/m", "max_rows": 0}], 4),
    (["load", 4, {"path": "/m", "prefill_chunk": True}], 4),
    (["load", 4, {"path": "/m", "cache_bytes": -1}], 4),
    (["load", 4, {"path": "/m", "kv_tokens": 0}], 4),
    (["load", 4, {"path": "/m", "kv_tokens": True}], 4),
    (["load", 4, {"path": "/m", "cache_bytes": 1.5}], 4),
    (["load", 4], 4),
    (["load", -1, {"path": "/m"}], None),
    (["unload", 4, 5], 4),
    (["tokenize", 4, b"x", True], 4),
    (["tokenize", 4, "x", 1], 4),
    (["info", "4"], None),
    (["info", True], None),
    (["cancel", 3], None),
    (["cancel", [3, -1]], None),
    (["generate", -1, BODY], None),
    (["generate", 1, []], None),
    (["generate", 1], None),
]


@pytest.mark.parametrize(("frame", "call"), BAD)
def test_a_frame_of_another_shape_is_bad_and_keeps_its_call(frame: object, call: int | None) -> None:
    bad = parse(frame)
    assert isinstance(bad, BadFrame)
    assert bad.call == call


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids": []},
        {"ids": None},
        {"ids": [1, -1]},
        {"ids": [1, True]},
        {"ids": [1, 2.0]},
        {"max_tokens": 0},
        {"max_tokens": None},
        {"max_tokens": 1.5},
        {"stop_ids": [-1]},
        {"stop_ids": list(range(2000))},
        {"top_logprobs": 21},
        {"top_logprobs": -1},
        {"top_logprobs": True},
        {"cache_salt": "é" * 33},
        {"cache_salt": b"x"},
        {"cache_salt": 7},
        {"prefill_chunk": 0},
        {"prefill_chunk": 8193},
        {"prefill_chunk": True},
        {"prefill_chunk": 64.0},
        {"generated": 2},
        {"generated": -1},
        {"generated": True},
        {"generated": 1.0},
        {"sampling": []},
        {"sampling": {"temperature": -0.1}},
        {"sampling": {"temperature": float("nan")}},
        {"sampling": {"temperature": "hot"}},
        {"sampling": {"top_p": 1.1}},
        {"sampling": {"top_k": -1}},
        {"sampling": {"min_p": 2}},
        {"sampling": {"repetition_penalty": 0}},
        {"sampling": {"presence_penalty": float("inf")}},
        {"sampling": {"logit_bias": [[1, float("inf")]]}},
        {"sampling": {"logit_bias": [[1]]}},
        {"sampling": {"logit_bias": {"1": 2}}},
        {"sampling": {"seed": -1}},
        {"sampling": {"seed": 1.0}},
    ],
)
def test_a_row_with_unusable_parameters_is_refused_by_its_number(wrong: dict[str, object]) -> None:
    refused = parse(["generate", 6, BODY | wrong])
    assert isinstance(refused, Refused)
    assert (refused.row, refused.code) == (6, Code.INVALID_REQUEST)


def test_the_ids_are_a_prompt_and_the_beginning_of_the_answer() -> None:
    asked = Generate(1, (5, 6, 7, 8), 9, generated=3)
    assert (asked.prompt_tokens, asked.replayed) == (1, (6, 7, 8))
    assert (replace(asked, generated=0).prompt_tokens, replace(asked, generated=0).replayed) == (4, ())


@given(VALUES)
def test_parsing_is_total(value: object) -> None:
    parse(value)


@given(
    st.sampled_from(["load", "unload", "generate", "cancel", "tokenize", "list", "info", "shutdown"]), st.lists(VALUES)
)
def test_parsing_is_total_for_every_verb(verb: str, rest: list[object]) -> None:
    parse([verb, *rest])


@given(
    st.dictionaries(st.sampled_from([*BODY, "temperature", "cache_salt", "prefill_chunk", "generated"]), VALUES),
    st.dictionaries(st.sampled_from(["seed", "top_p", "logit_bias"]), VALUES),
)
def test_a_generate_with_a_row_and_a_map_is_never_a_bad_frame(
    body: dict[str, object], sampling: dict[str, object]
) -> None:
    assert not isinstance(parse(["generate", 1, BODY | body | {"sampling": sampling}]), BadFrame)


def test_the_frames_to_the_agent_have_the_shapes_of_the_contract() -> None:
    stream = b"".join(
        (
            hello_frame({"protocol": 1}),
            reply_frame(3, {"a": 1}),
            error_frame(None, Code.BUSY, "full"),
            progress_frame(9, "loading", 0.5, 1, 2),
            step_frame(4, [(7, [1, 2], "stop", {"generated": 3})], StepStats(0.5, 64, 0.25, 2, 99)),
        )
    )
    assert [item.value for item in Decoder().feed(stream) if isinstance(item, Frame)] == [
        ["hello", {"protocol": 1}],
        ["reply", 3, {"a": 1}],
        ["error", None, "busy", "full"],
        ["progress", {"step": 9, "phase": "loading", "fraction": 0.5, "running": 1, "queued": 2}],
        ["step", 4, [[7, [1, 2], "stop", {"generated": 3}]], [0.5, 64, 0.25, 2, 99]],
    ]
