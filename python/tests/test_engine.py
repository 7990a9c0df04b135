"""The backend on MLX without a process around it: the lookahead, failures in the model call, memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest
from mlx_lm.models.llama import Model

from mlx_runtime.backend import Start
from mlx_runtime.batch import Chunk
from mlx_runtime.engine import MlxBackend
from mlx_runtime.engine.batcher import KvBatch
from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.protocol import Generate, Load, Sampling
from test_generation import expected_greedy, prompt

GREEDY = Sampling(temperature=0.0)


@pytest.fixture
def backend(llama: Path) -> MlxBackend:
    """A backend with the llama loaded."""
    made = MlxBackend()
    made.prepare()
    made.load(Load(1, str(llama), 64, 8), lambda _fraction: None)
    return made


def begin(backend: MlxBackend, row: int, ids: list[int]) -> None:
    """Take a row through prefill into the decode batch."""
    backend.start([Start(Generate(row, tuple(ids), 99, GREEDY))])
    if len(ids) > 1:
        backend.prefill([Chunk(row, 0, len(ids) - 1)])
    backend.promote([row])


def steps(backend: MlxBackend, count: int) -> dict[int, list[int]]:
    """Decode; the tokens by row."""
    told: dict[int, list[int]] = {}
    for _ in range(count):
        sampled = backend.decode()
        for row, token in zip(sampled.rows, sampled.tokens, strict=True):
            told.setdefault(row, []).append(token)
    return told


def test_a_row_that_joins_gives_its_first_token_one_step_later_and_disturbs_nobody(
    backend: MlxBackend, llama: Path
) -> None:
    begin(backend, 1, prompt(20))
    assert steps(backend, 1) == {}
    assert steps(backend, 2) == {1: expected_greedy(llama, prompt(20), 2)}
    begin(backend, 2, prompt(3))
    assert steps(backend, 3) == {
        1: expected_greedy(llama, prompt(20), 5)[2:],
        2: expected_greedy(llama, prompt(3), 2),
    }


def test_the_rows_of_a_batch_share_each_call_of_the_model(backend: MlxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in range(8):
        begin(backend, row, prompt(20 + row))
    shapes: list[tuple[int, ...]] = []
    call = cast(Callable[..., mx.array], Model.__call__)

    def counted(self: Model, inputs: mx.array, *more: Any, **named: Any) -> mx.array:
        shapes.append(inputs.shape)
        return call(self, inputs, *more, **named)

    monkeypatch.setattr(Model, "__call__", counted)
    told = steps(backend, 10)
    assert shapes == [(8, 1)] * 10
    assert [len(tokens) for tokens in told.values()] == [9] * 8


def test_after_a_failed_model_call_and_a_reset_new_rows_are_right(
    backend: MlxBackend, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(backend, 1, prompt(20))
    steps(backend, 2)

    def fail(_batch: KvBatch, _tokens: mx.array) -> mx.array:
        raise RuntimeError("[matmul] shapes")

    with monkeypatch.context() as patch:
        patch.setattr(KvBatch, "forward", fail)
        with pytest.raises(RuntimeError):
            backend.decode()
    backend.reset()
    begin(backend, 2, prompt(20))
    assert steps(backend, 4) == {2: expected_greedy(llama, prompt(20), 3)}


def test_rows_that_stay_after_a_drop_go_on_as_if_they_were_alone(backend: MlxBackend, llama: Path) -> None:
    lengths = {1: 30, 2: 7, 3: 90, 4: 12}
    for row, length in lengths.items():
        begin(backend, row, prompt(length))
    first = steps(backend, 3)
    backend.drop([1, 3])
    second = steps(backend, 5)
    for row in (2, 4):
        expected = expected_greedy(llama, prompt(lengths[row]), 7)
        assert first[row] + second[row] == expected
    assert set(second) == {2, 4}


def test_dropping_rows_anywhere_returns_their_memory(backend: MlxBackend) -> None:
    before = backend.memory().active_bytes
    for row in range(4):
        begin(backend, row, prompt(100 + row))
    backend.start([Start(Generate(9, tuple(prompt(500)), 9, GREEDY))])
    backend.prefill([Chunk(9, 0, 64)])
    steps(backend, 3)
    assert backend.memory().active_bytes - before > 4 * 100 * 512
    backend.drop([0, 9, 77])
    assert list(steps(backend, 1)) == [1, 2, 3]
    backend.drop([1, 2, 3])
    backend.sweep()
    assert backend.memory().active_bytes - before <= 64


def test_weights_larger_than_the_machine_are_refused_before_they_are_read(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small_machine(*_: object) -> dict[str, Any]:
        return {"memory_size": 1000}

    monkeypatch.setattr(mx, "device_info", small_machine)
    backend = MlxBackend()
    backend.prepare()
    with pytest.raises(RuntimeFault) as caught:
        backend.load(Load(1, str(llama), 64, 8), lambda _fraction: None)
    assert caught.value.code is Code.OUT_OF_MEMORY


def test_a_model_whose_cache_cannot_be_batched_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cannot: Callable[[Any], bool] = lambda _model: False  # noqa: E731
    monkeypatch.setattr("mlx_runtime.engine.loading.can_batch", cannot)
    backend = MlxBackend()
    backend.prepare()
    with pytest.raises(RuntimeFault) as caught:
        backend.load(Load(1, str(llama), 64, 8), lambda _fraction: None)
    assert caught.value.code is Code.UNSUPPORTED_MODEL


def test_loading_tells_a_rising_fraction(llama: Path) -> None:
    backend, told = MlxBackend(), list[float]()
    backend.prepare()
    backend.load(Load(1, str(llama), 64, 8), told.append)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)
