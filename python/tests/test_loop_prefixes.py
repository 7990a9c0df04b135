"""The step loop and the prefix cache: what a row is started with, when its sequence is kept, what the agent is told."""

from dataclasses import replace
from typing import Any

import pytest

from mlx_runtime.prefix_cache import Reuse
from mlx_runtime.protocol import Cancel, Generate, Info, ListRows, Load, Message, Shutdown, Unload
from test_loop import FACTS, Stage, ends

LONG = tuple(range(300))


def stage_of(reuse: Reuse = Reuse.CUT, cache_bytes: int = 1000, prefill_chunk: int = 256) -> Stage:
    """A loop with a model of some context; a token takes one byte in the prefix cache."""
    stage = Stage(loaded=False)
    stage.backend.facts = replace(FACTS, context_length=5000, vocab_size=5000, eos_ids=(4999,))
    stage.backend.reuses = reuse
    stage.turn(Load(1, "/m", prefill_chunk, 8, cache_bytes))
    stage.backend.calls.clear()
    return stage


def ask(row: int, ids: tuple[int, ...] = LONG, max_tokens: int = 2, salt: str | None = "s") -> Generate:
    """A row with a salt."""
    return Generate(row, ids, max_tokens, cache_salt=salt)


def run(stage: Stage, *messages: Message, turns: int = 8) -> list[Any]:
    """Some turns after these messages; their frames."""
    frames = stage.turn(*messages)
    for _ in range(turns):
        frames += stage.turn()
    return frames


def last_of(frames: list[Any], row: int) -> dict[str, Any]:
    """The closing facts of a row."""
    (facts,) = [one[3] for frame in frames if frame[0] == "step" for one in frame[2] if one[0] == row and one[2]]
    return facts


def prefilled(frames: list[Any]) -> int:
    """The prompt tokens these steps computed."""
    return sum(frame[3][1] for frame in frames if frame[0] == "step")


def counts(stage: Stage) -> dict[str, int]:
    """The figures of the prefix cache."""
    (reply,) = stage.turn(Info(99))
    return reply[2]["prefix_cache"]


def test_a_second_row_starts_with_what_the_first_left_and_computes_the_rest() -> None:
    stage = stage_of()
    cold = run(stage, ask(1))
    assert (prefilled(cold), last_of(cold, 1)["cached_tokens"]) == (299, 0)
    assert stage.backend.calls == [
        ("start", [1]),
        ("prefill", [(1, 0, 256)]),
        ("prefill", [(1, 256, 43)]),
        ("keep", 1, 256),
        ("promote", [1]),
        ("decode",),
        ("decode",),
        ("drop", [1]),
    ]
    stage.backend.calls.clear()
    warm = run(stage, ask(2))
    assert (prefilled(warm), last_of(warm, 2)["cached_tokens"]) == (43, 256)
    assert stage.backend.calls[:2] == [("start", [(2, "256 of row 1", 256)]), ("prefill", [(2, 256, 43)])]
    assert counts(stage) == {
        "entries": 1,
        "bytes": 256,
        "hits": 1,
        "misses": 1,
        "hit_tokens": 256,
        "query_tokens": 600,
    }


def test_replayed_tokens_are_found_and_kept_like_any_and_told_as_none_of_the_prompt() -> None:
    stage = stage_of()
    run(stage, replace(ask(1), generated=120))
    warm = run(stage, replace(ask(2), generated=120), replace(ask(3), generated=10), ask(4))
    assert prefilled(warm) == 3 * 43
    assert [last_of(warm, row)["cached_tokens"] for row in (2, 3, 4)] == [180, 256, 256]
    assert [last_of(warm, row)["prompt_tokens"] for row in (2, 3, 4)] == [180, 290, 300]
    assert {key: counts(stage)[key] for key in ("hit_tokens", "query_tokens")} == {
        "hit_tokens": 3 * 256,
        "query_tokens": 4 * 300,
    }


def test_a_row_cached_to_its_end_decodes_in_its_first_step() -> None:
    stage = stage_of()
    run(stage, ask(1))
    (frame,) = stage.turn(ask(2, LONG[:257]))
    assert frame[2] == [[2, [10], None, None]]
    assert frame[3] == [0.0, 0, 0.0, 1, 258]


def test_a_long_prompt_that_is_cached_does_not_wait_behind_long_ones_that_are_not() -> None:
    stage = stage_of(prefill_chunk=64)
    run(stage, ask(1))
    cold = [ask(row, tuple(range(row, 2000 + row))) for row in range(2, 8)]
    stage.turn(*cold, ask(8))
    (reply,) = [frame for frame in stage.turn(ListRows(9)) if frame[0] == "reply"]
    states = {row[0]: row[1] for row in reply[2]["rows"]}
    assert [row for row, state in states.items() if state == "queued"] == [6, 7]
    assert states[8] == "prefill"


def test_the_sequence_of_a_row_is_kept_at_its_end_before_the_backend_forgets_it() -> None:
    stage = stage_of()
    run(stage, ask(1, LONG, 150), turns=160)
    keeps = [n for n, call in enumerate(stage.backend.calls) if call == ("keep", 1, 448)]
    assert stage.backend.calls[keeps[0] + 1] == ("drop", [1])
    whole = LONG + tuple(10 + n for n in range(150))
    frames = run(stage, ask(2, (*whole, 7, 8)))
    assert last_of(frames, 2)["cached_tokens"] == 448
    assert counts(stage)["bytes"] == 448


@pytest.mark.parametrize(("turns", "kept"), [(1, []), (2, [("keep", 1, 256)]), (140, [("keep", 1, 384)])])
def test_a_cancelled_row_leaves_its_sequence_if_its_prompt_was_computed(turns: int, kept: list[Any]) -> None:
    stage = stage_of()
    run(stage, ask(1, LONG, 999), turns=turns - 1)
    if turns > 2:
        stage.backend.calls.clear()
    stage.turn(Cancel((1,)))
    assert [call for call in stage.backend.calls if isinstance(call, tuple) and call[0] == "keep"] == kept
    assert stage.backend.calls[-1] == ("drop", [1])


@pytest.mark.parametrize("end", [Unload(9), Shutdown(9)])
def test_rows_that_end_with_the_model_leave_nothing(end: Message) -> None:
    stage = stage_of()
    run(stage, ask(1, LONG, 999), turns=140)
    stage.backend.calls.clear()
    stage.turn(end)
    assert ("keep", 1, 384) not in stage.backend.calls


def test_without_a_salt_nothing_is_read_or_written() -> None:
    stage = stage_of()
    run(stage, ask(1, salt=None), ask(2, salt=None))
    run(stage, ask(3))
    frames = run(stage, ask(4, salt=None), ask(5, salt="other"))
    assert [last_of(frames, row)["cached_tokens"] for row in (4, 5)] == [0, 0]
    assert [call for call in stage.backend.calls if isinstance(call, tuple) and call[0] == "keep"] == [
        ("keep", 3, 256),
        ("keep", 5, 256),
    ]


def test_with_no_bytes_there_is_no_cache() -> None:
    stage = stage_of(cache_bytes=0)
    run(stage, ask(1))
    assert last_of(run(stage, ask(2)), 2)["cached_tokens"] == 0
    assert set(counts(stage).values()) == {0}


def test_a_model_whose_cache_cannot_be_cut_is_copied_at_the_last_block_of_a_prompt() -> None:
    stage = stage_of(Reuse.WHOLE, prefill_chunk=200)
    run(stage, ask(1))
    assert stage.backend.calls[:6] == [
        ("start", [1]),
        ("prefill", [(1, 0, 200)]),
        ("prefill", [(1, 200, 56)]),
        ("keep", 1, 256),
        ("prefill", [(1, 256, 43)]),
        ("promote", [1]),
    ]
    assert last_of(run(stage, ask(2)), 2)["cached_tokens"] == 256


@pytest.mark.parametrize("call", ["start", "prefill", "keep", "promote", "decode", "drop"])
def test_a_failure_anywhere_drops_the_cache_and_the_next_rows_are_computed(call: str) -> None:
    stage = stage_of()
    run(stage, ask(1, LONG[::-1]))
    stage.backend.raises[call] = RuntimeError("[metal::malloc] out of memory")
    waiting = [ask(row, LONG[:10], salt="s") for row in range(10, 30)]
    frames = run(stage, ask(2), *waiting, turns=30)
    assert ends(frames)[2] == ("error", "out_of_memory")
    assert counts(stage)["bytes"] == 0
    assert last_of(run(stage, ask(3, LONG[::-1])), 3)["cached_tokens"] == 0
    assert last_of(run(stage, ask(4)), 4)["cached_tokens"] in {0, 256}
    assert last_of(run(stage, ask(5)), 5)["cached_tokens"] == 256


def test_unloading_drops_the_cache_and_its_counts() -> None:
    stage = stage_of()
    run(stage, ask(1))
    stage.turn(Unload(2))
    assert set(counts(stage).values()) == {0}
    stage.turn(Load(3, "/m", 256, 8, 1000))
    assert last_of(run(stage, ask(2)), 2)["cached_tokens"] == 0


def test_a_chunk_given_with_a_row_is_the_loops_from_then_on() -> None:
    stage = stage_of()
    (frame,) = stage.turn(replace(ask(1), prefill_chunk=100))
    assert frame[3][1] == 100
    assert stage.turn()[0][3][1] == 100
    (frame,) = stage.turn(ask(2, LONG[::-1]))
    assert frame[3][1] == 100
    assert stage.turn(replace(ask(3, (1,)), prefill_chunk=8))[0][3][1] == 8


def test_a_row_that_is_turned_away_changes_no_chunk() -> None:
    stage = stage_of()
    stage.turn(replace(ask(1, (4999, 5000)), prefill_chunk=1))
    assert stage.turn(ask(2))[0][3][1] == 256


def test_the_last_frame_tells_how_long_a_row_waited_for_its_first_chunk() -> None:
    stage = stage_of()
    stage.turn(*(ask(row, (1,), 3) for row in range(8)))
    stage.now = 1.0
    stage.turn(ask(8, (1,), 1), ask(9, (1,), 9), ask(10, (1,), 9))
    stage.now = 3.5
    frames = stage.turn(Cancel((9,)))
    assert last_of(frames, 9)["queued_s"] == 2.5
    stage.now = 5.0
    frames += run(stage)
    assert [last_of(frames, row)["queued_s"] for row in (0, 8)] == [0.0, 4.0]


def test_the_list_shows_cached_tokens_as_done_once_a_row_is_admitted() -> None:
    stage = stage_of(prefill_chunk=8)
    run(stage, ask(1), turns=45)
    frames = stage.turn(ask(2), ListRows(7))
    assert frames[0][2] == {"rows": [[2, "queued", 0, 300, 0]]}
    assert stage.turn(ListRows(8))[0][2] == {"rows": [[2, "prefill", 264, 300, 0]]}
