"""Answers of a real runtime process: equal to mlx-lm's own, whatever else is in the batch, and repeatable from a
seed."""

import importlib
import random
from pathlib import Path
from typing import Any

import pytest

from agent import Agent, agent
from conftest import MakeModel
from tiny_models import Recipe

RECIPES = [
    Recipe(),
    Recipe(arch="qwen3", seed=1),
    Recipe(arch="gemma3_text", seed=2),
    Recipe(arch="qwen3", bits=4, seed=3),
    Recipe(dtype="bfloat16", seed=4),
]
SAMPLED: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "seed": 1234}
PENALISED = SAMPLED | {"repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.1, "top_k": 40}


def prompt(length: int, seed: int = 0) -> list[int]:
    """Ids that are not special."""
    chance = random.Random(length * 1000 + seed)
    return [chance.randrange(9, 265) for _ in range(length)]


def expected_greedy(folder: Path, ids: list[int], count: int) -> list[int]:
    """What mlx-lm generates by itself."""
    core: Any = importlib.import_module("mlx.core")
    generate: Any = importlib.import_module("mlx_lm.generate")
    utils: Any = importlib.import_module("mlx_lm.utils")
    model, _ = utils.load_model(folder)
    return [int(token) for token, _ in generate.generate_step(core.array(ids), model, max_tokens=count)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.arch}-{r.bits or r.dtype}")
def test_greedy_answers_equal_those_of_mlx_lm_alone_and_in_a_ragged_batch(recipe: Recipe, model: MakeModel) -> None:
    folder = model(recipe)
    # gemma3's window is 32: prompts below, across and far past it; 1 and 2 are the shortest prompts there are
    lengths = (1, 2, 7, 31, 33, 65, 150, 300)
    # bfloat16 rounds differently in another batch shape; there, only the answers of rows alone are equal
    with agent() as running:
        running.load(folder, prefill_chunk=64, max_rows=8)
        expected = [expected_greedy(folder, prompt(length), 24) for length in lengths]
        assert [running.run(prompt(length), 24).ids for length in lengths[:4]] == expected[:4]
        if recipe.dtype == "float32":
            rows = [running.start(prompt(length), 24) for length in lengths]
            assert [running.finish(row).ids for row in rows] == expected


@pytest.mark.parametrize("sampling", [SAMPLED, PENALISED], ids=["plain", "penalised"])
def test_a_seeded_answer_repeats_alone_in_a_ragged_batch_and_joining_late(
    runtime: Agent, sampling: dict[str, Any]
) -> None:
    alone = runtime.run(prompt(40), 32, sampling)
    assert alone.ids == runtime.run(prompt(40), 32, sampling).ids
    crowd = [
        runtime.start(prompt(n, 5), 40, {"temperature": 1.1, "min_p": 0.01 * i}) for i, n in enumerate((3, 90, 17))
    ]
    batched = runtime.start(prompt(40), 32, sampling)
    more = runtime.start(prompt(200, 5), 20)
    assert runtime.finish(batched).ids == alone.ids
    late_company = runtime.start(prompt(25, 6), 200, {"temperature": 1.0, "frequency_penalty": 0.5})
    runtime.tokens_of(late_company, 20)
    assert runtime.run(prompt(40), 32, sampling).ids == alone.ids
    for row in (*crowd, more, late_company):
        assert runtime.finish(row).finish == "length"


def test_another_seed_gives_another_answer_and_no_seed_a_new_one_each_time(runtime: Agent) -> None:
    hot: dict[str, Any] = {"temperature": 1.5}
    answers = [runtime.run(prompt(10), 24, hot | {"seed": seed}).ids for seed in (1, 2, 2**64 - 1)]
    answers += [runtime.run(prompt(10), 24, hot).ids for _ in range(2)]
    assert len({tuple(ids) for ids in answers}) == 5


def test_a_long_answer_equals_that_of_mlx_lm(runtime: Agent, llama: Path) -> None:
    company = runtime.start(prompt(11), 700)
    assert runtime.run(prompt(8), 600).ids == expected_greedy(llama, prompt(8), 600)
    assert runtime.finish(company).finish == "length"


def test_a_hot_row_leaves_the_greedy_rows_of_its_batch_alone(runtime: Agent) -> None:
    alone = runtime.run(prompt(12), 40).ids
    hot = runtime.start(prompt(12), 40, {"temperature": 2.0, "logit_bias": [[20, 5.0]]})
    greedy = runtime.start(prompt(12), 40)
    assert runtime.finish(greedy).ids == alone
    assert runtime.finish(hot).ids != alone


def test_a_stop_id_ends_the_row_and_is_counted_but_not_delivered(runtime: Agent) -> None:
    free = runtime.run(prompt(20), 12).ids
    stop = next(token for index, token in enumerate(free) if index >= 3 and token not in free[:index])
    cut = free.index(stop)
    stopped = runtime.run(prompt(20), 12, stop_ids=[stop], top_logprobs=1)
    assert (stopped.ids, stopped.finish, stopped.last["generated"]) == (free[:cut], "stop", cut + 1)
    assert len(stopped.logprobs) == cut


def test_without_stop_ids_the_models_own_end_the_row(runtime: Agent) -> None:
    forced = {"temperature": 0.0, "logit_bias": [[4, 1000.0]]}
    answer = runtime.run(prompt(20), 12, forced, stop_ids=[])
    assert (answer.ids, answer.finish, answer.last["generated"]) == ([], "stop", 1)


def test_the_last_frame_counts_the_row(runtime: Agent) -> None:
    answer = runtime.run(prompt(130), 5)
    assert {key: answer.last[key] for key in ("generated", "prompt_tokens", "cached_tokens")} == {
        "generated": 5,
        "prompt_tokens": 130,
        "cached_tokens": 0,
    }
    assert (answer.finish, answer.deltas, answer.last["prefill_s"] > 0) == ("length", 5, True)


def test_logprobs_come_for_the_rows_that_ask_and_for_each_token(runtime: Agent) -> None:
    silent = runtime.start(prompt(9), 8)
    asking = runtime.start(prompt(9), 8, top_logprobs=3)
    only_own = runtime.start(prompt(9), 8, top_logprobs=0)
    answer = runtime.finish(asking)
    assert [entry[1][0][0] for entry in answer.logprobs] == answer.ids
    assert [len(entry[1]) for entry in answer.logprobs] == [3] * 8
    assert all(entry[0] == entry[1][0][1] <= 0 for entry in answer.logprobs)
    assert [entry[1] for entry in runtime.finish(only_own).logprobs] == [[]] * 8
    assert runtime.finish(silent).logprobs == []


def test_an_answer_ends_where_the_context_ends(model: MakeModel) -> None:
    with agent() as running:
        assert running.load(model(Recipe(ctx=64)))["context_length"] == 64
        answer = running.run(prompt(60), 100)
        assert (len(answer.ids), answer.finish) == (4, "length")
        full = running.run(prompt(64), 1)
        assert (full.finish, full.last["code"], full.last["prompt_tokens"]) == ("error", "context_length_exceeded", 64)
        assert len(running.run(prompt(63), 9).ids) == 1


def test_more_rows_than_fit_wait_and_all_end_with_their_own_answer(runtime: Agent) -> None:
    alone = [runtime.run(prompt(n + 1), 6).ids for n in range(30)]
    rows = [runtime.start(prompt(n + 1), 6) for n in range(30)]
    assert [runtime.finish(row).ids for row in rows] == alone
