"""The KV caches of real MLX in a room: what they hold at every step, and that no answer notices the groups."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest

from conftest import MakeModel
from mlx_runtime.backend import Start
from mlx_runtime.batch import Chunk
from mlx_runtime.engine import MlxBackend
from mlx_runtime.engine.batcher import KvBatch
from mlx_runtime.framing import Decoder, Frame
from mlx_runtime.inbox import Inbox
from mlx_runtime.loop import StepLoop
from mlx_runtime.outbox import Outbox
from mlx_runtime.protocol import Cancel, Generate, Load, Message, Sampling
from test_generation import expected_greedy, prompt
from tiny_models import Recipe

RECIPES = [Recipe(), Recipe(arch="gemma3_text", seed=2), Recipe(arch="qwen3", bits=4, seed=3)]
ALL = pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.arch}-{r.bits or r.dtype}")
QUANTUM = 256
CHUNK = 256
# One stop id that is never drawn.
NEVER = frozenset([(1 << 32) - 1])


class Posted(Outbox):
    """Keeps what the rows of every step frame were told."""

    def __init__(self) -> None:
        super().__init__()
        self._decoder = Decoder()
        self.answers: dict[int, list[int]] = {}
        self.ended: dict[int, str] = {}
        self.cached: dict[int, int] = {}

    def post(self, frame: bytes) -> None:
        for item in self._decoder.feed(frame):
            value = cast(list[Any], cast(Frame, item).value)
            rows = cast(list[tuple[int, list[int], str | None, dict[str, Any]]], value[2] if value[0] == "step" else [])
            for row, ids, finish, extra in rows:
                self.answers.setdefault(row, []).extend(ids)
                if finish is not None:
                    self.ended[row] = finish if finish != "error" else extra["text"]
                    self.cached[row] = extra["cached_tokens"]


class Running:
    """A step loop over MLX that is turned by hand, and watched after every turn."""

    def __init__(self, folder: Path, room: int | None, rows: int = 16) -> None:
        self.backend, self.inbox, self.outbox = MlxBackend(), Inbox(), Posted()
        self.backend.prepare()
        self.loop = StepLoop(self.backend, self.inbox, self.outbox, lambda: 0.0, idle_s=0.0)
        self.turn(Load(1, str(folder), CHUNK, rows, kv_tokens=room))
        mx.clear_cache()
        self.weights = self.backend.memory().active_bytes

    def turn(self, *messages: Message) -> None:
        """One turn after these messages."""
        for message in messages:
            assert self.inbox.offer(message, 1)
        self.loop.turn()

    @property
    def kv(self) -> KvBatch:
        """The batch."""
        return batch_of(self.backend)

    def held(self) -> Iterator[tuple[str, int]]:
        """The kind and the bytes of every cache."""
        for cache in self.kv.held():
            yield type(cache).__name__, int(cache.nbytes)

    def until_all_ended(self, rows: int, watch: Callable[[], None] = lambda: None) -> dict[int, list[int]]:
        """Turn until so many rows have ended."""
        while len(self.outbox.ended) < rows:
            self.turn()
            watch()
        return self.outbox.answers


def asked(row: int, ids: list[int], count: int, **more: Any) -> Generate:
    """A row, greedy unless it says otherwise."""
    sampling = Sampling(**more.pop("sampling", {"temperature": 0.0}))
    return Generate(row, tuple(ids), count, sampling, NEVER, **more)


LONG, SHORT = 1500, (20, 33, 64, 90, 150, 200, 260)
# One group of all would hold eight times the long row, 12,288 and more.
ROOM = 4096


@ALL
def test_a_long_row_beside_short_ones_holds_what_the_room_allows_and_all_answers_are_right(
    recipe: Recipe, model: MakeModel
) -> None:
    running = Running(model(recipe), ROOM)
    # As many layers grow with every token: of gemma3's two, one has a window.
    layers = 1 if recipe.arch == "gemma3_text" else 2
    token = 2 * 2 * (recipe.hidden // 4) * 4
    groups: set[int] = set()
    ended: dict[int, str] = {}

    def watch() -> None:
        rows = sum(len(group) for group in running.kv.groups)
        growing = sum(size for kind, size in running.held() if kind == "BatchKVCache")
        assert growing <= token * layers * (ROOM + QUANTUM * rows)
        windows = sum(size for kind, size in running.held() if kind != "BatchKVCache")
        assert windows <= token * rows * (32 + CHUNK)
        # Nothing else is alive: no copy that was made on the way, no array that a part was cut out of. What rows that
        # have just ended leave behind is let go of by the next step.
        mx.synchronize()
        if len(running.outbox.ended) == len(ended):
            assert running.backend.memory().active_bytes - running.weights <= growing + windows + (1 << 17)
        ended.update(running.outbox.ended)
        groups.add(len(running.kv.groups))

    prompts = [prompt(LONG), *(prompt(length) for length in SHORT)]
    # The short ones come while the long one is read, and meet it again in the decode batch.
    running.turn(asked(0, prompts[0], 60))
    for _ in range(4):
        running.turn()
        watch()
    running.turn(*(asked(row, ids, 60) for row, ids in enumerate(prompts) if row))
    answers = running.until_all_ended(8, watch)
    assert set(running.outbox.ended.values()) == {"length"}
    assert max(groups) >= 2
    for row, ids in enumerate(prompts):
        assert answers[row] == expected_greedy(model(recipe), ids, 60)


@pytest.mark.parametrize("room", [None, 1 << 20])
def test_with_ample_room_rows_of_all_lengths_stay_in_one_group_and_are_fed_as_they_come(
    llama: Path, room: int | None
) -> None:
    running = Running(llama, room)
    most = 0

    def watch() -> None:
        nonlocal most
        decoding = set(running.kv.rows)
        stages = [bool(decoding.intersection(group)) for group in running.kv.groups]
        assert len(stages) == len(set(stages))
        assert cast(Any, running.kv)._lanes.out is None
        most = max(most, len(decoding))

    rows = [asked(row, prompt(length), 40 + row) for row, length in enumerate([1200, *SHORT, 1, 2])]
    running.turn(*rows[:4])
    for row in rows[4:]:
        running.turn(row)
        watch()
    running.until_all_ended(len(rows), watch)
    assert most >= 5


def test_a_row_longer_than_the_room_runs_beside_others(llama: Path) -> None:
    running = Running(llama, 300)
    running.turn(asked(0, prompt(700), 300), asked(1, prompt(30), 300), asked(2, prompt(40), 20))
    answers = running.until_all_ended(3)
    assert [len(answers[row]) for row in range(3)] == [300, 300, 20]
    assert answers[0] == expected_greedy(llama, prompt(700), 300)
    assert answers[1] == expected_greedy(llama, prompt(30), 300)


def test_rows_are_parted_layer_by_layer_and_pending_copies_do_not_hold_what_was_before(model: MakeModel) -> None:
    # All six fit at 768 and not at 1,024.
    running = Running(model(Recipe(layers=8, seed=6)), 5900)
    running.turn(asked(0, prompt(700), 300), *(asked(row, prompt(560, row), 300) for row in range(1, 6)))
    while len(running.kv.rows) < 6:
        running.turn()
    held = before = peak = 0
    while len(running.kv.groups) == 1:
        mx.synchronize()
        held, before = sum(size for _, size in running.held()), running.backend.memory().active_bytes
        copy = running.backend.keep(1, 64, 1 << 30)
        mx.reset_peak_memory()
        running.turn()
        mx.synchronize()
        peak = running.backend.memory().peak_bytes
        assert copy is not None
    assert sorted(map(len, running.kv.groups)) == [1, 5]
    # The new caches are nearly as large as the old one; of eight layers no more than two are there twice.
    assert sum(size for _, size in running.held()) > held * 2 // 3 > 0
    assert peak - before < held // 3


def loaded(folder: Path, room: int) -> MlxBackend:
    """A backend without a loop."""
    backend = MlxBackend()
    backend.prepare()
    backend.load(Load(1, str(folder), CHUNK, 8, kv_tokens=room), lambda _fraction: None)
    return backend


def batch_of(backend: MlxBackend) -> KvBatch:
    """Its batch."""
    return cast(KvBatch, cast(Any, backend)._kv)


def test_decoding_rows_that_make_room_for_a_prompt_hold_only_their_own_while_it_is_read(llama: Path) -> None:
    backend = loaded(llama, 4096)
    weights = backend.memory().active_bytes
    lengths = {0: 700, 1: 100, 2: 110, 3: 120, 9: 1500}
    backend.start([Start(asked(row, prompt(lengths[row]), 9)) for row in range(4)])
    backend.prefill([Chunk(row, 0, lengths[row] - 1) for row in range(4)])
    backend.promote([0, 1, 2, 3])
    backend.decode()
    assert batch_of(backend).groups == [[0, 1, 2, 3]]
    backend.start([Start(asked(9, prompt(1500), 9))])
    start = 0
    while len(batch_of(backend).groups) <= 2:
        backend.prefill([Chunk(9, start, 250)])
        start += 250
    assert [sorted(group) for group in batch_of(backend).groups] == [[1, 2, 3], [0], [9]]
    mx.synchronize()
    held = sum(int(cache.nbytes) for cache in batch_of(backend).held())
    assert backend.memory().active_bytes - weights <= held + (1 << 17)


def test_what_prompts_of_unlike_chunks_leave_before_all_rows_of_a_batch_is_cut_off(llama: Path) -> None:
    backend = loaded(llama, 4096)
    backend.start([Start(asked(row, prompt(502 - row), 9)) for row in (0, 1)])
    backend.prefill([Chunk(0, 0, 500), Chunk(1, 0, 100)])
    backend.prefill([Chunk(0, 500, 1), Chunk(1, 100, 400)])
    backend.promote([0, 1])
    told: list[list[int]] = [backend.decode().tokens for _ in range(5)][1:]
    assert sum(int(cache.nbytes) for cache in batch_of(backend).held()) <= 2 * 768 * 512
    assert [list(ids) for ids in zip(*told, strict=True)] == [
        expected_greedy(llama, prompt(502 - n), 4) for n in (0, 1)
    ]


SAMPLINGS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.9, "top_p": 0.95, "seed": 7},
    {"temperature": 0.8, "seed": 9, "repetition_penalty": 1.2, "frequency_penalty": 0.1},
]


def script(seed: int) -> list[list[Message]]:
    """What is asked before each of many turns: rows of all lengths, some with a beginning in common, some cancelled."""
    chance = random.Random(seed)
    shared = prompt(600, 5)
    turns: list[list[Message]] = []
    for row in range(40):
        ids = prompt(chance.choice([1, 3, 60, 250, 258, 500, 900]), row)
        if chance.random() < 0.4:
            ids = [*shared[: chance.choice([200, 600])], *ids]
        salt = chance.choice(["s", None])
        ask = asked(row, ids, chance.choice([1, 10, 50, 90]), sampling=chance.choice(SAMPLINGS), cache_salt=salt)
        turns.append([ask])
        turns += [[] for _ in range(chance.choice([0, 0, 1, 6]))]
        if chance.random() < 0.15:
            turns.append([Cancel((chance.randrange(row + 1),))])
    return turns


@pytest.mark.parametrize("recipe", RECIPES[:2], ids=lambda r: r.arch)
def test_answers_of_a_busy_hour_do_not_depend_on_the_room(recipe: Recipe, model: MakeModel) -> None:
    told: list[tuple[dict[int, list[int]], dict[int, str]]] = []
    most = 0
    for room in (None, 3000):
        running = Running(model(recipe), room, rows=8)
        for messages in script(3):
            running.turn(*messages)
            most = max(most, len(running.kv.groups))
        running.until_all_ended(40)
        assert running.kv.groups == []
        told.append((running.outbox.answers, running.outbox.ended))
        assert sum(cached > 0 for cached in running.outbox.cached.values()) >= 3
    assert most >= 4
    (wide, wide_ends), (tight, tight_ends) = told
    assert wide_ends == tight_ends
    assert "cancelled" in wide_ends.values()
    assert wide == tight
