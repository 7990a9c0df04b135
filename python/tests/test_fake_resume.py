"""Answers of the fake runtime that go on elsewhere: the right way gives the same tokens, every wrong way others."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from agent import Agent, agent
from fake_runtime.words import SPELLED, answer_to, spelled
from mlx_runtime.protocol import Generate, Sampling
from test_generation import prompt

LENGTH = 24
SEEDED: dict[str, Any] = {"temperature": 0.8, "seed": 7}
SAMPLINGS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 0.0},
    "seeded": SEEDED,
    "presence": {"temperature": 0.0, "presence_penalty": 0.5},
    "frequency": {"temperature": 0.0, "frequency_penalty": 0.5},
    "repetition": SEEDED | {"repetition_penalty": 1.1},
}
ALL = pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
PENALISED = pytest.mark.parametrize("kind", ["presence", "frequency", "repetition"])


@pytest.fixture(scope="module", params=["plain", "spelled"])
def fakes(llama: Path, request: pytest.FixtureRequest) -> Generator[tuple[Agent, Agent]]:
    """Two processes that stand for two nodes."""
    spelled = str(int(request.param == "spelled"))
    with agent("fake_runtime", "--spelled", spelled) as one, agent("fake_runtime", "--spelled", spelled) as two:
        one.load(llama, prefill_chunk=17)
        two.load(llama)
        yield one, two


@ALL
def test_an_answer_cut_anywhere_goes_on_as_it_would_have(fakes: tuple[Agent, Agent], sampling: dict[str, Any]) -> None:
    first, second = fakes
    ids = prompt(30)
    whole = first.run(ids, LENGTH, sampling).ids
    assert len(set(whole)) > 4
    rows = [
        second.start(ids + whole[:cut], LENGTH - cut, sampling, generated=cut, cache_salt="s") for cut in range(LENGTH)
    ]
    for cut, row in enumerate(rows):
        answer = second.finish(row)
        assert whole[:cut] + answer.ids == whole
        assert (answer.finish, answer.last["generated"], answer.last["prompt_tokens"]) == ("length", LENGTH - cut, 30)


@ALL
def test_an_answer_cut_twice_goes_on_as_it_would_have(fakes: tuple[Agent, Agent], sampling: dict[str, Any]) -> None:
    first, second = fakes
    told = first.run(prompt(9), 5, sampling).ids
    told += second.run(prompt(9) + told, 6, sampling, generated=5).ids
    told += first.run(prompt(9) + told, LENGTH - 11, sampling, generated=11).ids
    assert told == first.run(prompt(9), LENGTH, sampling).ids


@ALL
def test_the_replayed_tokens_taken_for_prompt_give_another_answer(
    fakes: tuple[Agent, Agent], sampling: dict[str, Any]
) -> None:
    first, second = fakes
    whole = first.run(prompt(30), LENGTH, sampling).ids
    for count in (0, 9):  # none, and all but one
        assert second.run(prompt(30) + whole[:10], LENGTH - 10, sampling, generated=count).ids != whole[10:]


@ALL
def test_a_replayed_token_that_is_lost_or_doubled_gives_another_answer(
    fakes: tuple[Agent, Agent], sampling: dict[str, Any]
) -> None:
    first, second = fakes
    whole = first.run(prompt(30), LENGTH, sampling).ids
    lost, doubled = whole[:9], [*whole[:10], whole[9]]
    assert second.run(prompt(30) + lost, LENGTH - 10, sampling, generated=9).ids != whole[10:]
    assert second.run(prompt(30) + doubled, LENGTH - 10, sampling, generated=11).ids != whole[10:]


@PENALISED
def test_penalties_that_forget_what_was_replayed_give_another_answer(fakes: tuple[Agent, Agent], kind: str) -> None:
    first, second = fakes
    sampling = SAMPLINGS[kind]
    whole = first.run(prompt(30), LENGTH, sampling).ids
    other = [*whole[:9], next(token for token in whole if token != whole[9])]
    assert second.run(prompt(30) + other, LENGTH - 10, sampling, generated=10).ids != whole[10:]
    plain = {key: value for key, value in sampling.items() if not key.endswith("_penalty")}
    assert second.run(prompt(30) + whole[:10], LENGTH - 10, plain, generated=10).ids != whole[10:]


@pytest.mark.parametrize("seed", [None, 8])
def test_another_seed_or_none_gives_another_answer(fakes: tuple[Agent, Agent], seed: int | None) -> None:
    first, second = fakes
    whole = first.run(prompt(30), LENGTH, SEEDED).ids
    assert second.run(prompt(30) + whole[:10], LENGTH - 10, SEEDED | {"seed": seed}, generated=10).ids != whole[10:]


def test_without_a_seed_each_answer_is_another(fakes: tuple[Agent, Agent]) -> None:
    answers = [node.run(prompt(30), LENGTH, {"temperature": 0.8}).ids for node in (*fakes, fakes[0])]
    assert len({tuple(ids) for ids in [*answers, fakes[0].run(prompt(30), LENGTH).ids]}) == 4


def test_the_end_of_an_answer_stays_where_it_is(llama: Path) -> None:
    with agent("fake_runtime", "--eos-after", "8") as fake:
        fake.load(llama)
        whole = fake.run(prompt(5), 50, stop_ids=[])
        rest = fake.run(prompt(5) + whole.ids[:5], 45, generated=5, stop_ids=[])
        assert (len(whole.ids), whole.ids[5:]) == (7, rest.ids)
        assert (rest.finish, rest.last["generated"]) == ("stop", 3)


def test_a_penalised_answer_is_spelled_in_whole_words_too(llama: Path) -> None:
    units = spelled(llama)
    with agent("fake_runtime", "--spelled", "1") as fake:
        fake.load(llama)
        told = fake.run(prompt(3), 80, SAMPLINGS["frequency"]).ids
        assert {tuple(told[at : at + 4]) for at in range(0, 80, 4)} <= set(units)


def test_words_are_spelled_so_that_characters_and_stop_strings_are_split_over_tokens(llama: Path) -> None:
    assert {len(word.encode()) for word in SPELLED} == {4}
    units = spelled(llama)
    asked = Generate(1, tuple(prompt(3)), 400, Sampling(temperature=0.0))
    answer, told = answer_to(asked, 0, units), list[int]()
    for _ in range(400):
        told.append(answer.token(told))
    with agent("fake_runtime", "--spelled", "1") as fake:
        fake.load(llama)
        assert fake.run(prompt(3), 400).ids == told
        words = [SPELLED[units.index(tuple(told[at : at + 4]))] for at in range(0, 400, 4)]
        assert set(words) == set(SPELLED)
        assert decoded(llama, told) == "".join(words)
        crab = 4 * words.index("🦀")
        for split in (1, 2, 3):
            assert decoded(llama, told[crab : crab + split]) == "\ufffd"


def decoded(folder: Path, ids: list[int]) -> str:
    """What the folder's tokenizer says the tokens are."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - nothing else here needs it

    return Tokenizer.from_file(str(folder / "tokenizer.json")).decode(ids, skip_special_tokens=False)
