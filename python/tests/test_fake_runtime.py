"""The fake runtime: its tokens, its clock, and that a client cannot tell it from the real one by outcomes."""

from pathlib import Path
from typing import Any, cast

import pytest

from agent import Agent, QuestionFailed, agent
from fake_runtime.backend import FakeBackend
from fake_runtime.knobs import Knobs
from fake_runtime.words import fingerprint, plain, unit_at
from mlx_runtime.backend import Start
from mlx_runtime.batch import Chunk
from mlx_runtime.folder import open_folder
from mlx_runtime.outbox import Outbox
from mlx_runtime.protocol import Generate, Load
from test_generation import prompt

FORCED = {"temperature": 0.0, "logit_bias": [[4, 1000.0]]}


def shape(value: object) -> object:
    """Types and keys, without values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in cast(dict[str, object], value).items()}
    if isinstance(value, list):
        return sorted({repr(shape(inner)) for inner in cast(list[object], value)})
    return type(value).__name__


def code_of(running: Agent, *question: Any) -> str:
    """The code a question fails with."""
    with pytest.raises(QuestionFailed) as caught:
        running.ask(*question)
    return caught.value.code


def outcome(running: Agent, ids: list[int], max_tokens: int, sampling: object = None, **more: object) -> list[Any]:
    """What a client sees of a row, but for the words."""
    answer = running.run(ids, max_tokens, sampling, **more)
    told = {
        key: value for key, value in answer.last.items() if key not in ("queued_s", "prefill_s", "logprobs", "text")
    }
    return [len(answer.ids), answer.finish, told, [len(entry[1]) for entry in answer.logprobs], sorted(answer.last)]


def trace(running: Agent, llama: Path) -> list[Any]:
    """A small trace of everything a client can do."""
    seen: list[Any] = [code_of(running, "info", 1), code_of(running, "tokenize", "x", True), code_of(running, "unload")]
    seen.append(outcome(running, [20], 1))
    seen.append(code_of(running, "load", {"path": "/none/at/all"}))
    facts = running.load(llama)
    seen += [facts | {"load_s": 0.0}, running.ask("tokenize", "room of <|im_end|>", True)]
    seen += [outcome(running, prompt(n), 5) for n in (1, 2, 63, 64, 65, 300)]
    seen.append(outcome(running, prompt(9), 4, top_logprobs=3))
    seen.append(outcome(running, prompt(9), 4, top_logprobs=0))
    seen.append(outcome(running, prompt(2048), 4))
    seen.append(outcome(running, prompt(2040), 50))
    seen.append(outcome(running, [511, 512], 4))
    for salt in ("s", "s", "t", None, "", "s"):
        seen.append(outcome(running, prompt(300), 200, cache_salt=salt, prefill_chunk=48))
    seen += [outcome(running, prompt(300)[:200], 5, cache_salt="s"), running.ask("info")["prefix_cache"]]
    seen += [outcome(running, prompt(300), 5, generated=count, cache_salt="s") for count in (1, 100, 299, 300, -1)]
    seen += [outcome(running, [511, 512], 4, generated=1), outcome(running, prompt(2048), 4, generated=2000)]
    seen += [outcome(running, [20], 4, cache_salt="x" * 65), outcome(running, [20], 4, prefill_chunk=0)]
    bad: list[dict[str, object]] = [{"temperature": -1}, {"top_p": 2}, {"logit_bias": [[512, 1.0]]}, {"seed": "x"}]
    seen += [outcome(running, [20], 4, sampling) for sampling in bad]
    seen += [outcome(running, [], 4), outcome(running, [20], 0), outcome(running, [20], 4, top_logprobs=21)]
    seen += [code_of(running, "load", {"path": str(llama)}), code_of(running, "info", 1, 2)]
    row = running.start(prompt(40), 1900)
    running.tokens_of(row, 3)
    seen += [running.ask("list")["rows"][0][:4], shape(running.ask("info"))]
    running.send(["cancel", [row, 4711]])
    seen.append(running.finish(row).finish)
    running.ask("unload")
    return [*seen, running.ask("info")["loaded"], running.ask("shutdown"), running.wait_closed()]


def test_the_fake_and_the_real_runtime_agree_on_everything_a_client_can_see(llama: Path) -> None:
    with agent() as real, agent("fake_runtime", "--t1-s", "0.002") as fake:
        assert trace(real, llama) == trace(fake, llama)
        kinds = [
            {frame[0]: shape(frame[1:]) for frame in one.frames if frame[0] in ("hello", "progress")}
            for one in (real, fake)
        ]
        assert set(real.frames[0][1]) == set(fake.frames[0][1])
        assert set(kinds[0]) == set(kinds[1])
        steps = [next(f for f in one.frames if f[0] == "step" and f[2] and f[2][0][2]) for one in (real, fake)]
        assert shape(steps[0][1]) == shape(steps[1][1])


def test_an_end_of_sequence_looks_alike_on_both(llama: Path, runtime: Agent) -> None:
    with agent("fake_runtime", "--eos-after", "1") as fake:
        fake.load(llama)
        assert outcome(fake, prompt(9), 5, stop_ids=[]) == outcome(runtime, prompt(9), 5, FORCED, stop_ids=[])


def test_greedy_fake_tokens_are_a_function_of_prompt_and_position_and_are_plain_text(llama: Path) -> None:
    folder = open_folder(str(llama))
    units = plain(folder.path, folder.vocab_size, folder.eos_ids)
    assert units == sorted(set(units))
    assert all(9 <= token < 512 for (token,) in units)
    with agent("fake_runtime") as fake:
        fake.load(llama)
        answer = fake.run(prompt(30), 10).ids
        assert answer == [unit_at(fingerprint(prompt(30)), n, units)[0] for n in range(10)]
        assert fake.run(prompt(31), 10).ids != answer


def backend_of(llama: Path, knobs: Knobs) -> tuple[FakeBackend, list[float]]:
    """A fake backend with the model loaded, and the seconds it would have slept."""
    slept: list[float] = []
    backend = FakeBackend(lambda: knobs, Outbox(), slept.append)
    backend.load(Load(1, str(llama), 64, 8), lambda _fraction: None)
    return backend, slept


def test_a_step_takes_what_its_rows_and_their_tokens_cost(llama: Path) -> None:
    backend, slept = backend_of(llama, Knobs(prefill_tps=100.0, t1_s=1.0, beta=0.5, kappa=0.25, slow=2.0))
    backend.start([Start(Generate(row, tuple(prompt(10)), 9)) for row in (1, 2, 3)])
    backend.prefill([Chunk(1, 0, 9), Chunk(2, 0, 3), Chunk(3, 0, 9)])  # padded to three times nine
    backend.promote([1, 2])
    backend.decode()
    backend.promote([3])
    backend.decode()
    assert slept == pytest.approx([2 * 0.27, 2 * (1.5 + 0.25 * 20), 2 * (2.0 + 0.25 * 32)])


def test_a_copy_takes_the_bytes_of_its_tokens_for_as_long_as_somebody_holds_it(llama: Path) -> None:
    backend, slept = backend_of(llama, Knobs(prefill_tps=1.0))
    before = backend.memory().active_bytes
    backend.start([Start(Generate(1, tuple(prompt(200)), 9))])
    kept = backend.keep(1, 192, 192 * 512)
    assert kept is not None
    assert (kept.size, backend.keep(1, 192, 192 * 512 - 1)) == (192 * 512, None)
    backend.drop([1])
    assert backend.memory().active_bytes - before == kept.size
    del kept
    assert (backend.memory().active_bytes, slept) == (before, [])


def test_cached_prompt_tokens_cost_a_fake_no_time(llama: Path) -> None:
    with agent("fake_runtime", "--prefill-tps", "20000") as fake:
        fake.load(llama, prefill_chunk=256)
        cold, warm = (fake.run(prompt(1500), 3, cache_salt="s") for _ in range(2))
        assert [answer.last["cached_tokens"] for answer in (cold, warm)] == [0, 1472]
        assert cold.ids == warm.ids
        assert cold.last["prefill_s"] >= 1499 / 20000
        assert [frame[3][1] for frame in fake.frames if frame[0] == "step" and frame[3][1]] == [256] * 5 + [219, 27]


def test_a_narrower_fake_queues_the_rest(llama: Path) -> None:
    with agent("fake_runtime", "--max-rows", "2", "--t1-s", "0.01") as fake:
        fake.load(llama)
        rows = [fake.start([20 + n], 30) for n in range(5)]
        fake.tokens_of(rows[0], 1)
        assert [row[1] for row in fake.ask("list")["rows"]] == ["decode"] * 2 + ["queued"] * 3
        assert {fake.finish(row).finish for row in rows} == {"length"}
