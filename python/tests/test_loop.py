"""The step loop over a scripted backend, with a clock that is handed in: messages in, exact frames out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from mlx_runtime.backend import Memory, ModelFacts, Sampled, Start
from mlx_runtime.batch import Chunk
from mlx_runtime.errors import Code, DeviceLost, RuntimeFault
from mlx_runtime.framing import Decoder, Frame
from mlx_runtime.inbox import Inbox
from mlx_runtime.loop import EXIT_DEVICE_LOST, StepLoop
from mlx_runtime.outbox import Outbox
from mlx_runtime.prefix_cache import Kept, Reuse
from mlx_runtime.protocol import (
    Cancel,
    Generate,
    Info,
    ListRows,
    Load,
    Message,
    Refused,
    Sampling,
    Shutdown,
    Tokenize,
    Unload,
)

END = b"end of what was posted"
FACTS = ModelFacts("toy", 50, 1, 2, 3, 4, "float32", 100, (99,))


@dataclass
class Scripted:
    """A backend whose n-th token of a row is 10 + n; notes what it is told, raises what it is given."""

    calls: list[object] = field(default_factory=list[object])
    decoding: dict[int, int] = field(default_factory=dict[int, int])
    raises: dict[str, Exception] = field(default_factory=dict[str, Exception])
    closed: bool = False
    facts: ModelFacts = FACTS
    reuses: Reuse = Reuse.CUT
    loading: Callable[[], None] = lambda: None

    def _note(self, name: str, *rest: object) -> None:
        self.calls.append((name, *rest))
        if name in self.raises:
            raise self.raises.pop(name)

    def versions(self) -> dict[str, object]:
        return {}

    def prepare(self) -> None:
        return

    def load(self, spec: Load, progress: Callable[[float], None]) -> ModelFacts:
        self._note("load", spec.path)
        self.loading()
        progress(0.5)
        return self.facts

    def unload(self) -> None:
        self._note("unload")

    def tokenize(self, text: str, special: bool) -> list[int]:
        return [len(text), int(special)]

    def reuse(self) -> Reuse:
        return self.reuses

    def start(self, rows: list[Start]) -> None:
        self._note("start", [(row.asked.row, row.held, row.cached) if row.cached else row.asked.row for row in rows])

    def prefill(self, chunks: list[Chunk]) -> None:
        self._note("prefill", [(chunk.row, chunk.start, chunk.count) for chunk in chunks])

    def promote(self, rows: list[int]) -> None:
        self._note("promote", rows)
        self.decoding.update((row, 0) for row in rows)

    def decode(self) -> Sampled:
        self._note("decode")
        sampled = Sampled(list(self.decoding), [10 + count for count in self.decoding.values()])
        self.decoding = {row: count + 1 for row, count in self.decoding.items()}
        return sampled

    def keep(self, row: int, tokens: int, bytes_max: int) -> Kept | None:
        self._note("keep", row, tokens)
        return Kept(f"{tokens} of row {row}", tokens) if tokens <= bytes_max else None

    def drop(self, rows: list[int]) -> None:
        self._note("drop", rows)
        self.decoding = {row: count for row, count in self.decoding.items() if row not in rows}

    def reset(self) -> None:
        self._note("reset")
        self.decoding = {}

    def memory(self) -> Memory:
        return Memory(1, 2, 3)

    def sweep(self) -> None:
        return

    def close(self) -> None:
        self.closed = True


class Stage:
    """A loop with everything it touches."""

    def __init__(self, outbox_bytes_max: int = 1 << 20, loaded: bool = True) -> None:
        self.backend, self.inbox, self.outbox = Scripted(), Inbox(), Outbox(outbox_bytes_max)
        self.now = 0.0
        self.loop = StepLoop(self.backend, self.inbox, self.outbox, lambda: self.now, idle_s=0.0)
        self._decoder = Decoder()
        if loaded:
            self.turn(Load(1, "/m", 8, 4))
            self.backend.calls.clear()

    def turn(self, *messages: Message) -> list[Any]:
        """One turn after these messages; the frames it posted."""
        for message in messages:
            assert self.inbox.offer(message, 1)
        self.loop.turn()
        return self.frames()

    def frames(self) -> list[Any]:
        """What was posted and not yet looked at."""
        self.outbox.post(END)
        data = b""
        while not data.endswith(END):
            taken = self.outbox.take() or b""
            self.outbox.sent(len(taken))
            data += taken
        items = self._decoder.feed(data.removesuffix(END))
        return [cast(Any, item).value for item in items if isinstance(item, Frame)]


def ends(frames: list[Any]) -> dict[int, tuple[str, str | None]]:
    """How rows ended in these frames."""
    rows = [row for frame in frames if frame[0] == "step" for row in frame[2]]
    return {row[0]: (row[2], row[3].get("code")) for row in rows if row[2] is not None}


def test_a_row_lives_from_prefill_to_its_last_token_in_exactly_these_frames() -> None:
    stage = Stage()
    ask = Generate(5, tuple(range(12)), 2)
    assert stage.turn(ask) == [["step", 1, [], [0.0, 8, 0.0, 0, 8]]]
    assert stage.turn() == [["step", 2, [[5, [10], None, None]], [0.0, 3, 0.0, 1, 13]]]
    last = {"generated": 2, "prompt_tokens": 12, "cached_tokens": 0, "queued_s": 0.0, "prefill_s": 0.0}
    assert stage.turn() == [["step", 3, [[5, [11], "length", last]], [0.0, 0, 0.0, 1, 0]]]
    assert stage.backend.calls == [
        ("start", [5]),
        ("prefill", [(5, 0, 8)]),
        ("prefill", [(5, 8, 3)]),
        ("promote", [5]),
        ("decode",),
        ("decode",),
        ("drop", [5]),
    ]


def test_a_row_that_goes_on_counts_what_it_sampled_and_the_prompt_of_the_client() -> None:
    stage = Stage()
    stage.turn(Generate(5, tuple(range(12)), 2, generated=4))
    listed, _ = stage.turn(ListRows(1))
    assert listed[2] == {"rows": [[5, "prefill", 8, 12, 0]]}
    last = {"generated": 2, "prompt_tokens": 8, "cached_tokens": 0, "queued_s": 0.0, "prefill_s": 0.0}
    assert stage.turn() == [["step", 3, [[5, [11], "length", last]], [0.0, 0, 0.0, 1, 0]]]


@pytest.mark.parametrize(("length", "turns"), [(48, 2), (49, 1)])
def test_a_row_that_goes_on_ends_where_its_context_does(length: int, turns: int) -> None:
    stage = Stage()
    stage.turn(Generate(5, tuple(range(length)), 99, generated=30))
    frames = [frame for _ in range(6 + turns) for frame in stage.turn()]
    (last,) = [row[3] for frame in frames for row in frame[2] if row[2] == "length"]
    assert (last["generated"], last["prompt_tokens"]) == (turns, length - 30)


@pytest.mark.parametrize("count", [50, 60])
def test_a_row_turned_away_tells_the_prompt_of_the_client(count: int) -> None:
    (frame,) = Stage().turn(Generate(5, tuple(range(count)), 99, generated=20))
    assert frame[2][0][3]["prompt_tokens"] == count - 20
    frames = Stage().turn(*(Generate(row, (1, 2, 3), 5, generated=2) for row in range(257)))
    assert frames[0][2][-1][3]["prompt_tokens"] == 1
    frames = Stage(loaded=False).turn(Generate(1, (1, 2, 3), 5, generated=1))
    assert frames[0][2][0][3]["prompt_tokens"] == 2


def test_one_frame_carries_the_tokens_of_all_rows() -> None:
    stage = Stage()
    (frame,) = stage.turn(*(Generate(row, (1,), 9) for row in range(3)))
    assert frame[2] == [[row, [10], None, None] for row in range(3)]


def test_a_cancel_ends_queued_prefilling_and_decoding_rows_before_the_next_step() -> None:
    stage = Stage()
    stage.turn(Generate(1, (1,), 9), Generate(2, tuple(range(40)), 9), *(Generate(n, (1,), 9) for n in (3, 4, 5)))
    (frame,) = stage.turn(Cancel((1, 2, 5, 5, 77)))
    assert ends([frame]) == {1: ("cancelled", None), 2: ("cancelled", None), 5: ("cancelled", None)}
    assert [row[0] for row in frame[2] if row[2] is None] == [3, 4]
    assert ("drop", [1, 2]) in stage.backend.calls


def test_a_model_call_that_raises_ends_the_rows_it_held_and_spares_the_queue() -> None:
    stage = Stage()
    stage.turn(*(Generate(row, (1,), 9) for row in range(6)))
    stage.backend.raises["decode"] = ValueError("shapes")
    failed = stage.turn()
    assert ends(failed) == dict.fromkeys(range(4), ("error", "internal"))
    assert ("reset",) in stage.backend.calls
    (frame,) = stage.turn()
    assert [row[:3] for row in frame[2]] == [[4, [10], None], [5, [10], None]]


@pytest.mark.parametrize("call", ["start", "prefill", "promote", "decode", "drop"])
def test_a_failure_anywhere_in_a_step_ends_every_held_row_once_and_the_next_row_works(call: str) -> None:
    stage = Stage()
    stage.backend.raises[call] = RuntimeError("out of luck")
    frames = [frame for _ in range(4) for frame in stage.turn(*([Generate(1, (1, 2), 2)] if _ == 0 else []))]
    assert list(ends(frames)) == [1]
    assert ends([frame for _ in range(4) for frame in stage.turn(*([Generate(2, (1,), 1)] if _ == 0 else []))]) == {
        2: ("length", None)
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[metal::malloc] Attempting to allocate 99 bytes"), "out_of_memory"),
        (RuntimeError("[matmul] shapes"), "internal"),
        (RuntimeFault(Code.BUSY, "later"), "busy"),
    ],
)
def test_an_exception_is_told_by_its_code(error: Exception, code: str) -> None:
    stage = Stage()
    stage.backend.raises["prefill"] = error
    assert ends(stage.turn(Generate(1, (1, 2), 2))) == {1: ("error", code)}


@pytest.mark.parametrize("text", ["[METAL] Command buffer execution failed", "[ring] connection to a peer was lost"])
def test_a_lost_device_ends_the_process_with_status_70(text: str) -> None:
    stage = Stage()
    stage.backend.raises["prefill"] = RuntimeError(text)
    stage.inbox.offer(Generate(1, (1, 2), 2), 1)
    assert stage.loop.run() == EXIT_DEVICE_LOST
    assert not stage.backend.closed
    stage.backend.raises["prefill"] = RuntimeError(text)
    with pytest.raises(DeviceLost):
        stage.turn(Generate(2, (1, 2), 2))


def test_rows_of_an_agent_that_does_not_read_end_and_the_loop_goes_on() -> None:
    stage = Stage(outbox_bytes_max=300)
    stage.turn(Generate(1, (1,), 40), Generate(2, tuple(range(30)), 40))
    while not stage.outbox.over:
        stage.loop.turn()
    stage.loop.turn()
    assert ends(stage.frames()) == {1: ("error", "slow_reader"), 2: ("error", "slow_reader")}
    assert ends([frame for _ in range(3) for frame in stage.turn(*([Generate(3, (1,), 1)] if _ == 0 else []))]) == {
        3: ("length", None)
    }


def test_signs_of_life_come_each_half_second_with_the_phase() -> None:
    stage = Stage()
    stage.now = 0.4
    assert [frame[0] for frame in stage.turn(Generate(1, tuple(range(20)), 9))] == ["step"]
    stage.now = 0.6
    assert stage.turn()[-1] == [
        "progress",
        {"step": 2, "phase": "prefill", "fraction": None, "running": 1, "queued": 0},
    ]
    stage.now = 1.2
    assert stage.turn()[-1][1]["phase"] == "decode"
    stage.turn(Cancel((1,)))
    stage.now = 2.0
    assert stage.turn(ListRows(9))[-1][1]["phase"] == "idle"


def test_loading_gives_signs_of_life_with_a_fraction() -> None:
    stage = Stage(loaded=False)

    def pass_time() -> None:
        stage.now += 5.0

    stage.backend.loading = pass_time
    frames = stage.turn(Load(4, "/m", 8, 4))
    told = [frame[1] for frame in frames if frame[0] == "progress"]
    assert [(sign["phase"], sign["fraction"]) for sign in told] == [("loading", 0.0), ("loading", 0.5)]
    (reply,) = [frame for frame in frames if frame[0] == "reply"]
    assert reply[1:] == [4, FACTS.wire() | {"load_s": 5.0}]


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (Generate(1, tuple(range(50)), 1), "context_length_exceeded"),
        (Generate(1, (100,), 1), "invalid_request"),
        (Generate(1, (1,), 1, sampling=Sampling(logit_bias=((100, 1.0),))), "invalid_request"),
        (Refused(1, Code.INVALID_REQUEST, "top_p"), "invalid_request"),
    ],
)
def test_a_row_that_does_not_fit_the_model_ends_at_once(ask: Message, code: str) -> None:
    assert ends(Stage().turn(ask)) == {1: ("error", code)}


def test_without_a_model_rows_and_questions_fail_as_not_loaded() -> None:
    stage = Stage(loaded=False)
    frames = stage.turn(Generate(1, (1,), 1), Tokenize(2, "a", False), Unload(3))
    assert ends(frames) == {1: ("error", "not_loaded")}
    assert [frame[1:3] for frame in frames if frame[0] == "error"] == [[2, "not_loaded"], [3, "not_loaded"]]


def test_a_number_that_lives_is_refused_without_touching_its_row() -> None:
    stage = Stage()
    frames = stage.turn(Generate(1, (1,), 2), Generate(1, (2,), 2), Refused(1, Code.INVALID_REQUEST, "x"))
    assert [frame[1:3] for frame in frames if frame[0] == "error"] == [[None, "duplicate_row"]] * 2
    assert ends(stage.turn()) == {1: ("length", None)}


def test_the_waiting_room_is_bounded() -> None:
    stage = Stage()
    frames = stage.turn(*(Generate(row, (1,), 5) for row in range(300)))
    assert ends(frames) == dict.fromkeys(range(256, 300), ("error", "busy"))


def test_list_and_info_tell_what_runs() -> None:
    stage = Stage()
    asked = [Generate(n, tuple(range(10 * n)), 9) for n in (1, 4)]
    stage.turn(*asked, *(Generate(n, (1,), 9) for n in (5, 6, 7)))
    frames = stage.turn(ListRows(1), Info(2))
    assert frames[0] == [
        "reply",
        1,
        {
            "rows": [
                [1, "prefill", 4, 10, 0],
                [4, "prefill", 4, 40, 0],
                [5, "decode", 1, 1, 1],
                [6, "decode", 1, 1, 1],
                [7, "queued", 0, 1, 0],
            ]
        },
    ]
    info = frames[1][2]
    assert (info["running"], info["queued"], info["active_bytes"], info["model"]["model_type"]) == (4, 1, 1, "toy")


def test_unloading_ends_rows_and_a_second_load_needs_it() -> None:
    stage = Stage()
    stage.turn(Generate(1, (1,), 9))
    assert [frame[1:3] for frame in stage.turn(Load(2, "/n", 8, 4)) if frame[0] == "error"] == [[2, "already_loaded"]]
    frames = stage.turn(Unload(3))
    assert ends(frames) == {1: ("cancelled", None)}
    assert frames[-1] == ["reply", 3, {"active_bytes": 1}]
    assert stage.turn(Load(4, "/n", 8, 4))[-1][1] == 4


def test_a_load_that_fails_leaves_no_model_and_can_be_tried_again() -> None:
    stage = Stage(loaded=False)
    stage.backend.raises["load"] = KeyError("weights")
    assert [frame[1:3] for frame in stage.turn(Load(1, "/m", 8, 4)) if frame[0] == "error"] == [[1, "internal"]]
    assert stage.turn(Load(2, "/m", 8, 4))[-1][:2] == ["reply", 2]


def test_shutdown_ends_rows_answers_and_leaves_with_status_0() -> None:
    stage = Stage()
    for message in (Generate(1, (1,), 9), Shutdown(2)):
        stage.inbox.offer(message, 1)
    assert stage.loop.run() == 0
    frames = stage.frames()
    assert ends(frames) == {1: ("cancelled", None)}
    assert ["reply", 2, {}] in frames
    assert stage.backend.closed
