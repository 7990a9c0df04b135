"""Answers that go on in another process, on real MLX: the tokens are those of the answer nobody interrupted.

To prefill a token rounds differently than to decode it, so two tokens that are all but equally likely may change
places. None do in float32, whose answers are compared as they are; below it, an answer may leave the other where the
two best are closer than the format can tell, and nowhere else.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent import Agent, Answer, agent
from conftest import MakeModel
from test_generation import PENALISED, SAMPLED, prompt
from tiny_models import Recipe

DEMO = Path(__file__).resolve().parents[1] / "demo_model" / "weights"
LENGTH = 64
GREEDY: dict[str, Any] = {"temperature": 0.0}
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": GREEDY,
    "seeded": SAMPLED,
    "hot": {"temperature": 1.5, "min_p": 0.01, "seed": 2**64 - 1},
    "penalised": PENALISED,
    "greedy and penalised": PENALISED | {"temperature": 0.0},
}
RECIPES = [
    Recipe(),
    Recipe(arch="qwen3", seed=1),
    Recipe(arch="gemma3_text", seed=2),
    Recipe(arch="qwen3", bits=4, seed=3),
]
HALF = [
    Recipe(dtype="bfloat16", seed=4),
    Recipe(arch="gemma3_text", dtype="bfloat16", seed=7),
    Recipe(arch="qwen3", dtype="float16", bits=4, seed=6),
]
DOZEN = (1, 2, 3, 7, 13, 19, 28, 31, 32, 40, 57, 63)

TwoNodes = tuple[Agent, Agent]
NodesOf = Callable[[Recipe | None], TwoNodes]


def named(recipe: Recipe) -> str:
    """As the tests are listed."""
    return f"{recipe.arch}-{recipe.bits or ''}{recipe.dtype}"


@pytest.fixture(scope="module")
def nodes_of(model: MakeModel) -> Generator[NodesOf]:
    """Two processes with the model of a recipe, or with the demo model; they cut prompts differently."""
    with ExitStack() as stack:
        started: dict[Recipe | None, TwoNodes] = {}

        def get(recipe: Recipe | None) -> TwoNodes:
            if recipe not in started:
                pair = stack.enter_context(agent()), stack.enter_context(agent())
                for running, chunk in zip(pair, (64, 23), strict=True):
                    running.load(DEMO if recipe is None else model(recipe), prefill_chunk=chunk, max_rows=12)
                started[recipe] = pair
            return started[recipe]

        yield get


def resumed(running: Agent, ids: list[int], whole: list[int], cuts: tuple[int, ...], **more: Any) -> list[Answer]:
    """The answers that go on at each of these places, all in one batch."""
    rows = [running.start(ids + whole[:cut], LENGTH - cut, generated=cut, **more) for cut in cuts]
    return [running.finish(row) for row in rows]


@pytest.mark.parametrize("recipe", [*RECIPES, None], ids=lambda recipe: named(recipe) if recipe else "demo")
def test_a_greedy_answer_cut_anywhere_goes_on_as_it_would_have(recipe: Recipe | None, nodes_of: NodesOf) -> None:
    first, second = nodes_of(recipe)
    whole = first.run(prompt(40), LENGTH).ids
    cuts = tuple(range(LENGTH))
    for cut, answer in zip(cuts, resumed(second, prompt(40), whole, cuts), strict=True):
        assert whole[:cut] + answer.ids == whole, cut
        assert (answer.finish, answer.last["generated"], answer.last["prompt_tokens"]) == ("length", LENGTH - cut, 40)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_seeds_and_penalties_go_on_where_they_were(recipe: Recipe, nodes_of: NodesOf, sampling: dict[str, Any]) -> None:
    first, second = nodes_of(recipe)
    whole = first.run(prompt(70), LENGTH, sampling, top_logprobs=1)
    answers = resumed(second, prompt(70), whole.ids, DOZEN, sampling=sampling, top_logprobs=1)
    for cut, answer in zip(DOZEN, answers, strict=True):
        assert whole.ids[:cut] + answer.ids == whole.ids, cut
        told = [entry[0] for entry in answer.logprobs]
        assert told == pytest.approx([entry[0] for entry in whole.logprobs[cut:]], abs=1e-4)


@pytest.mark.parametrize("recipe", HALF, ids=named)
def test_in_half_precision_an_answer_leaves_the_other_only_where_two_tokens_are_all_but_equal(
    recipe: Recipe, nodes_of: NodesOf
) -> None:
    first, second = nodes_of(recipe)
    left = 0
    for length in (5, 40, 100):
        whole = first.run(prompt(length), LENGTH, top_logprobs=2)
        for cut, answer in zip(DOZEN, resumed(second, prompt(length), whole.ids, DOZEN), strict=True):
            pairs = zip(whole.ids[cut:], answer.ids, whole.logprobs[cut:], strict=True)
            gap = next((best[0][1] - best[1][1] for one, other, (_, best) in pairs if one != other), 0.0)
            assert gap < 0.1, (length, cut)
            left += answer.ids != whole.ids[cut:]
    print(f"\n{named(recipe)}: {left} of {3 * len(DOZEN)} answers left the other")


def test_a_resumed_answer_finds_its_sequence_in_the_prefix_cache_and_leaves_it_there(nodes_of: NodesOf) -> None:
    first, second = nodes_of(RECIPES[0])
    ids, salt = prompt(150), "resumed"
    whole = first.run(ids, LENGTH, SAMPLED).ids
    assert second.run(ids, 1, SAMPLED, cache_salt=salt).last["cached_tokens"] == 0
    (cold,) = resumed(second, ids, whole, (50,), sampling=SAMPLED, cache_salt=salt)
    (warm,) = resumed(second, ids, whole, (50,), sampling=SAMPLED, cache_salt=salt)
    assert [cold.ids, warm.ids] == [whole[50:]] * 2
    assert [cold.last["cached_tokens"], warm.last["cached_tokens"]] == [128, 128]
    again = second.run([*ids, *whole, *prompt(80)], 1, cache_salt=salt)
    assert again.last["cached_tokens"] == 128  # 64 tokens more were not worth a copy


def test_each_thing_a_resumed_row_could_forget_is_seen_in_the_answers(nodes_of: NodesOf) -> None:
    first, second = nodes_of(RECIPES[0])
    hot: dict[str, Any] = {"temperature": 1.5, "seed": 5}
    penal: dict[str, Any] = {"temperature": 0.0, "presence_penalty": 1.5, "frequency_penalty": 0.8}
    for sampling in (hot, penal):
        whole = first.run(prompt(40), LENGTH, sampling).ids
        for count in (0, 31):
            wrong = second.run(prompt(40) + whole[:32], LENGTH - 32, sampling, generated=count)
            assert wrong.ids != whole[32:], (sampling, count)
    whole = first.run(prompt(40), LENGTH, hot).ids
    assert second.run(prompt(40) + whole[:32], LENGTH - 32, hot | {"seed": 6}, generated=32).ids != whole[32:]


def test_the_replayed_tokens_are_bounded_by_the_ids(nodes_of: NodesOf) -> None:
    running, _ = nodes_of(RECIPES[0])
    assert running.run([20, 21], 3, generated=1).finish == "length"
    assert running.run([20, 21], 3, generated=None).ids == running.run([20, 21], 3).ids
    for count in (2, -1, True, "1", 1.0):
        answer = running.run([20, 21], 3, generated=count)
        assert (answer.finish, answer.last["code"]) == ("error", "invalid_request")
