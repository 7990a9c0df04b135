"""The prefix cache on real MLX: a warm answer is the cold one, token for token, and the bytes told are those held."""

import importlib
import mmap
import random
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest

from agent import Agent, Answer, agent
from conftest import MakeModel
from mlx_runtime.backend import Start
from mlx_runtime.batch import Chunk
from mlx_runtime.engine import MlxBackend
from mlx_runtime.engine.caches import reuse_of, taken
from mlx_runtime.engine.evaluation import evaluate
from mlx_runtime.prefix_cache import Kept, Reuse
from mlx_runtime.protocol import Generate, Load, Sampling
from test_generation import PENALISED, SAMPLED, expected_greedy, prompt
from tiny_models import Recipe

# gemma3's windows of 32 slide many times in every prompt here; its entries cannot be cut.
RECIPES = [
    Recipe(),
    Recipe(arch="qwen3", seed=1),
    Recipe(arch="gemma3_text", seed=2),
    Recipe(arch="qwen3", bits=4, seed=3),
]
WINDOW = "gemma3"
# MLX hands out a buffer it has kept if that is at most two pages larger than what was asked for.
SLACK = 2 * mmap.PAGESIZE
ALL = pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.arch}-{r.bits or r.dtype}")


@pytest.fixture(scope="module")
def runtime_of(model: MakeModel) -> Generator[Callable[[Recipe], Agent]]:
    """A runtime with the model of a recipe; tests keep apart by their salts."""
    with ExitStack() as stack:
        started: dict[Recipe, Agent] = {}

        def get(recipe: Recipe) -> Agent:
            if recipe not in started:
                started[recipe] = stack.enter_context(agent())
                started[recipe].load(model(recipe), prefill_chunk=100, max_rows=8)
            return started[recipe]

        yield get


RuntimeOf = Callable[[Recipe], Agent]


def prefilled(running: Agent, act: Callable[[], object]) -> int:
    """The prompt tokens computed while something happens."""
    before = len(running.frames)
    act()
    return sum(frame[3][1] for frame in running.frames[before:] if frame[0] == "step")


def prefix_facts(running: Agent) -> dict[str, int]:
    """The figures of the prefix cache."""
    return running.ask("info")["prefix_cache"]


@ALL
def test_a_warm_answer_is_the_cold_one_alone(recipe: Recipe, model: MakeModel, runtime_of: RuntimeOf) -> None:
    running = runtime_of(recipe)
    for length in (129, 192, 193, 700):
        ids = prompt(length)
        expected = expected_greedy(model(recipe), ids, 20)
        answers = [running.run(ids, 20, cache_salt="alone") for _ in range(3)]
        assert [answer.ids for answer in answers] == [expected] * 3
        assert [answer.last["cached_tokens"] for answer in answers] == [0, *[(length - 1) // 64 * 64] * 2]


@ALL
def test_a_conversation_finds_its_earlier_turns(recipe: Recipe, runtime_of: RuntimeOf) -> None:
    running = runtime_of(recipe)
    ids, cached = prompt(150), list[int]()
    for turn in range(3):
        answer = running.run(ids, 140, cache_salt="talk")
        assert answer.ids == running.run(ids, 140).ids
        cached.append(answer.last["cached_tokens"])
        ids = [*ids, *answer.ids, *prompt(30, turn + 1)]
    # What can be cut is found with the answer; a window that slides, up to the last block of the prompt before.
    assert cached == ([0, 128, 256] if WINDOW in recipe.arch else [0, 256, 448])


@ALL
def test_warm_cold_and_unsalted_rows_of_a_ragged_batch_all_give_their_own_answers(
    recipe: Recipe, model: MakeModel, runtime_of: RuntimeOf
) -> None:
    running = runtime_of(recipe)
    base = prompt(400)
    prompts = [
        [*base, *prompt(90, 1)],
        [*base, *prompt(7, 2)],
        prompt(5),
        [*base[:200], *prompt(150, 3)],
        prompt(170),
        base,
        [*base, *prompt(300, 4)],
        prompt(1),
    ]
    salts = ["ragged", "ragged", None, "ragged", "other", "ragged", "ragged", "ragged"]
    expected = [expected_greedy(model(recipe), ids, 24) for ids in prompts]
    answers: list[Answer] = []
    for _ in range(3):
        rows = [running.start(ids, 24, cache_salt=salt) for ids, salt in zip(prompts, salts, strict=True)]
        answers = [running.finish(row) for row in rows]
        assert [answer.ids for answer in answers] == expected
    cached = [answer.last["cached_tokens"] for answer in answers]
    # Which rows met in a step decides whose last block was new enough to keep; the shared beginning always was.
    assert cached[0] in {384, 448}
    assert cached[1:3] == [384, 0]
    late = running.start(prompts[0], 200, cache_salt="ragged")
    running.tokens_of(late, 30)
    assert running.run(prompts[6], 24, cache_salt="ragged").ids == expected[6]
    assert running.finish(late).ids[:24] == expected[0]


@pytest.mark.parametrize("sampling", [SAMPLED, PENALISED, PENALISED | {"temperature": 0.0}])
@ALL
def test_seeds_penalties_and_logprobs_do_not_notice_the_cache(
    recipe: Recipe, runtime_of: RuntimeOf, sampling: dict[str, Any]
) -> None:
    running, ids = runtime_of(recipe), prompt(300)
    cold = running.run(ids, 40, sampling, top_logprobs=3)
    answers: list[Answer] = []
    for _ in range(2):
        rows = [running.start(ids, 40, sampling, top_logprobs=3, cache_salt="seeds") for _ in range(2)]
        company = running.start(prompt(77), 40, {"temperature": 1.0}, cache_salt="seeds")
        answers = [running.finish(row) for row in rows]
        assert [answer.ids for answer in answers] == [cold.ids] * 2
        for answer in answers:
            told = [entry[0] for entry in answer.logprobs]
            assert told == pytest.approx([entry[0] for entry in cold.logprobs], abs=1e-4)
        running.finish(company)
    assert answers[0].last["cached_tokens"] == 256


def test_the_prefill_of_a_warm_prompt_of_1500_tokens_computes_only_its_tail(llama: Path) -> None:
    with agent() as running:
        running.load(llama, prefill_chunk=256)
        expected = expected_greedy(llama, prompt(1500), 8)
        assert prefilled(running, lambda: running.run(prompt(1500), 8, cache_salt="s")) == 1499
        assert prefilled(running, lambda: running.run(prompt(1500), 8, cache_salt="s")) == 1499 - 1472
        answer = running.answers[2]
        assert (answer.ids, answer.last["cached_tokens"]) == (expected, 1472)
        assert prefilled(running, lambda: running.run(prompt(1500), 8, cache_salt="t")) == 1499
        assert prefilled(running, lambda: running.run(prompt(1500), 8)) == 1499


def test_a_row_finds_the_prompt_of_one_that_still_answers(runtime: Agent) -> None:
    first = runtime.start(prompt(500, 3), 400, cache_salt="still")
    runtime.tokens_of(first, 1)
    assert runtime.run(prompt(500, 3), 3, cache_salt="still").last["cached_tokens"] == 448
    assert runtime.finish(first).finish == "length"


def test_a_cancelled_answer_is_found_and_a_cancelled_prefill_is_not(llama: Path) -> None:
    with agent() as running:
        running.load(llama, prefill_chunk=32)
        row = running.start(prompt(100), 1500, cache_salt="s")
        running.tokens_of(row, 200)
        running.send(["cancel", [row]])
        told = running.finish(row).ids
        again = running.run([*prompt(100), *told, 20], 4, cache_salt="s")
        assert again.last["cached_tokens"] == (100 + len(told)) // 64 * 64
        assert again.ids == expected_greedy(llama, [*prompt(100), *told, 20], 4)
        entries = prefix_facts(running)["entries"]
        row = running.start(prompt(1900), 9, cache_salt="s")
        running.wait(lambda: any(entry[2] > 600 for entry in running.ask("list")["rows"]))
        running.send(["cancel", [row]])
        assert running.finish(row).finish == "cancelled"
        assert prefix_facts(running)["entries"] == entries


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[2]], ids=lambda r: r.arch)
def test_random_conversations_in_a_cache_that_is_too_small_are_all_answered_rightly(
    recipe: Recipe, model: MakeModel
) -> None:
    chance = random.Random(8)
    with agent() as running:
        running.ask("load", {"path": str(model(recipe)), "prefill_chunk": 80, "max_rows": 8, "cache_bytes": 700_000})
        roots = [prompt(chance.choice([130, 260, 400]), n) for n in range(3)]
        talks = [list(chance.choice(roots)) for _ in range(6)]
        for turn in range(6):
            talks = [[*talk, *prompt(chance.choice([1, 20, 63, 64, 65, 150]), turn)] for talk in talks]
            salts = [chance.choice(["s", "s", "t", None]) for _ in talks]
            rows = [running.start(talk, 10, cache_salt=salt) for talk, salt in zip(talks, salts, strict=True)]
            if turn % 3 == 1:
                running.send(["cancel", [running.start(talks[0] + talks[1], 50, cache_salt="s")]])
            answers = [running.finish(row).ids for row in rows]
            plain = [running.start(talk, 10) for talk in talks]
            assert answers == [running.finish(row).ids for row in plain]
            assert prefix_facts(running)["bytes"] <= 700_000
            talks = [
                [*talk, *answer] if len(talk) < 700 else list(chance.choice(roots))
                for talk, answer in zip(talks, answers, strict=True)
            ]
        facts = prefix_facts(running)
        assert facts["hits"] > 10
        assert facts["hit_tokens"] < facts["query_tokens"]


def test_unloading_returns_the_memory_of_the_cache(llama: Path) -> None:
    with agent() as running:
        running.load(llama)
        running.run(prompt(20), 3)
        before = running.ask("info")["active_bytes"]
        for n in range(5):
            running.run(prompt(600, n), 3, cache_salt="s")
        facts, held = prefix_facts(running), running.ask("info")["active_bytes"] - before
        assert (facts["entries"], facts["bytes"]) == (5, 5 * 576 * 512)
        assert abs(held - facts["bytes"]) <= 4096
        assert running.ask("unload")["active_bytes"] <= 4096
        assert set(prefix_facts(running).values()) == {0}


# --- the backend without a process around it ---


def loaded(folder: Path) -> MlxBackend:
    """A backend with a model."""
    backend = MlxBackend()
    backend.prepare()
    backend.load(Load(1, str(folder), 64, 8), lambda _fraction: None)
    return backend


def begin(backend: MlxBackend, rows: dict[int, list[int]], kept: Kept | None = None, cached: int = 0) -> None:
    """Rows through prefill, side by side."""
    greedy = Sampling(temperature=0.0)
    held = kept and kept.held
    backend.start([Start(Generate(row, tuple(ids), 99, greedy), held, cached) for row, ids in rows.items()])
    backend.prefill([Chunk(row, cached, len(ids) - 1 - cached) for row, ids in rows.items()])


def arrays(kept: Kept) -> list[mx.array]:
    """What a copy holds."""
    return [array for cache in cast(list[Any], kept.held) for array in (cache.keys, cache.values)]


def buffer_bytes(held: list[mx.array]) -> int:
    """What the allocator gave for these arrays."""
    return int(cast(Any, mx).get_array_buffer_size(held))


@ALL
def test_a_copy_takes_as_many_bytes_as_it_says_and_pins_nothing_else(recipe: Recipe, model: MakeModel) -> None:
    backend = loaded(model(recipe))
    backend.sweep()
    before = backend.memory().active_bytes
    begin(backend, {row: prompt(321 + 10 * row) for row in range(4)})
    small, large = backend.keep(1, 64, 1 << 30), backend.keep(2, 340, 1 << 30)
    assert (small is None) == (WINDOW in recipe.arch)
    assert large is not None
    # Of a layer with a window of 32, no more than the window, though one long chunk left more.
    assert large.size == 256 * (340 + 32 if WINDOW in recipe.arch else 340 + 340)
    backend.promote([0, 1, 2, 3])
    for _ in range(5):
        backend.decode()
    mixed = backend.keep(0, 325, 1 << 30)
    assert mixed is not None
    backend.drop([0, 1, 2, 3])
    backend.sweep()
    copies = [kept for kept in (small, large, mixed) if kept is not None]
    held = [array for kept in copies for array in arrays(kept)]
    buffers = buffer_bytes(held)
    assert 0 <= buffers - sum(kept.size for kept in copies) <= SLACK * len(held)
    assert backend.memory().active_bytes - before - buffers <= 256


def test_a_copy_is_the_same_whether_taken_in_prefill_or_while_decoding_beside_longer_rows(llama: Path) -> None:
    backend = loaded(llama)
    begin(backend, {1: prompt(200), 2: prompt(500)})
    first = backend.keep(1, 192, 1 << 30)
    backend.promote([1, 2])
    for _ in range(3):
        backend.decode()
    second = backend.keep(1, 192, 1 << 30)
    backend.drop([2])
    assert first is not None
    assert second is not None
    for one, other in zip(arrays(first), arrays(second), strict=True):
        assert bool(mx.array_equal(one, other))


def test_a_copy_that_would_be_too_large_or_of_more_than_there_is_is_not_made(llama: Path) -> None:
    backend = loaded(llama)
    begin(backend, {1: prompt(200)})
    assert backend.keep(1, 192, 192 * 512 - 1) is None
    assert backend.keep(1, 200, 1 << 30) is None
    assert backend.keep(1, 192, 192 * 512) is not None


def test_what_is_kept_serves_many_rows_and_stays_as_it_was(llama: Path) -> None:
    backend = loaded(llama)
    begin(backend, {1: prompt(300)})
    kept = backend.keep(1, 256, 1 << 30)
    assert kept is not None
    backend.drop([1])
    before = [mx.array(array) for array in arrays(kept)]
    for row, cached in ((2, 256), (3, 64), (4, 192)):
        begin(backend, {row: [*prompt(300)[:cached], *prompt(40, row)]}, kept, cached)
        backend.promote([row])
    for _ in range(20):
        backend.decode()
    backend.drop([2, 3, 4])
    assert all(bool(mx.array_equal(one, other)) for one, other in zip(before, arrays(kept), strict=True))


def test_a_copy_of_one_row_with_one_head_does_not_share_the_larger_buffer_of_the_batch() -> None:
    cache: Any = importlib.import_module("mlx_lm.models.cache").BatchKVCache([0])
    cache.update_and_fetch(mx.ones((1, 1, 6000, 16)), mx.ones((1, 1, 6000, 16)))
    copies = taken([cache], 0, 64)
    evaluate([copies[0].keys, copies[0].values])
    assert buffer_bytes([copies[0].keys, copies[0].values]) - 2 * 64 * 16 * 4 <= 2 * SLACK


def test_only_kinds_of_cache_that_are_proved_are_reused(llama: Path, model: MakeModel) -> None:
    assert loaded(llama).reuse() is Reuse.CUT
    assert loaded(model(Recipe(arch="gemma3_text", seed=2))).reuse() is Reuse.WHOLE

    class Recurrent:
        """A model that also keeps a running state."""

        def make_cache(self) -> list[Any]:
            """One of each."""
            kinds: Any = importlib.import_module("mlx_lm.models.cache")
            return [kinds.KVCache(), kinds.ArraysCache(2)]

    assert reuse_of(Recurrent()) is Reuse.NONE
