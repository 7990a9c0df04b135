"""How a runtime process lives and dies: the pipe, the socket, signals, signs of life, a reader that stops reading."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import PYTHON, Agent, QuestionFailed, agent
from conftest import MakeModel
from test_generation import prompt
from tiny_models import Recipe


def busy(running: Agent, model: MakeModel) -> None:
    """Load a model big enough to keep the engine thread inside one call, and start that call."""
    running.load(model(Recipe(hidden=256, layers=4, ctx=16384)), prefill_chunk=8192)
    running.start(prompt(16000), 10)
    running.wait(lambda: any(frame[0] == "progress" for frame in running.frames))


@pytest.mark.parametrize("end", ["pipe", "socket"])
def test_end_of_file_ends_the_process_while_the_engine_computes(end: str, model: MakeModel) -> None:
    with agent() as running:
        busy(running, model)
        time.sleep(0.2)  # not for a result: only to be inside the long call, which the test does not rely on
        hung_up = time.monotonic()
        if end == "pipe" and running.process.stdin is not None:
            running.process.stdin.close()
        else:
            running.socket.shutdown(2)
        assert running.wait_closed() == 0
        print(f"end of file on the {end}: gone after {(time.monotonic() - hung_up) * 1000:.0f} ms")


def test_the_first_frame_names_versions_and_device() -> None:
    with agent() as running:
        running.wait(lambda: bool(running.frames))
        verb, facts = running.frames[0]
        assert verb == "hello"
        assert set(facts) == {"protocol", "pid", "runtime", "mlx", "mlx_lm", "python", "device"}
        assert (facts["protocol"], facts["pid"]) == (1, running.process.pid)
        assert all(isinstance(facts[name], str) for name in ("runtime", "mlx", "mlx_lm", "python", "device"))


def test_shutdown_answers_then_ends_with_status_0_every_time(llama: Path) -> None:
    for round_number in range(4):
        with agent() as running:
            running.load(llama)
            row = running.start(prompt(20), 1000)
            running.tokens_of(row, 3 * round_number)
            assert running.ask("shutdown") == {}
            assert running.wait_closed() == 0
            assert running.answers[row].finish == "cancelled"


def test_an_idle_runtime_gives_signs_of_life() -> None:
    with agent() as running:
        running.wait(lambda: sum(frame[0] == "progress" for frame in running.frames) >= 3)
        assert {frame[1]["phase"] for frame in running.frames if frame[0] == "progress"} == {"idle"}


def test_a_loading_runtime_gives_signs_of_life(llama: Path) -> None:
    with agent() as running:
        running.load(llama)
        assert "loading" in {frame[1]["phase"] for frame in running.frames if frame[0] == "progress"}


def test_sigint_is_ignored_and_sigterm_ends_cleanly(llama: Path) -> None:
    with agent() as running:
        running.load(llama)
        os.kill(running.process.pid, signal.SIGINT)
        assert running.run(prompt(5), 3).finish == "length"
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.wait_closed() == 0


def test_without_the_agents_socket_the_process_ends_with_status_69(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlx_runtime", "--socket", str(tmp_path / "none")]
    # The pipe stays open until the end: its end of file would be another reason to go.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=PYTHON) as process:
        assert process.wait(60) == 69
        assert process.stderr is not None
        assert b"socket" in process.stderr.read()


def test_rows_of_an_agent_that_stops_reading_end_with_slow_reader_and_new_rows_work(model: MakeModel) -> None:
    with agent("fake_runtime") as running:
        running.load(model(Recipe(ctx=1 << 20)), max_rows=64)
        running.listening.clear()
        rows = [running.start([20 + n], 1 << 19, top_logprobs=20) for n in range(60)]
        time.sleep(3.0)  # the socket's own buffers must fill first; a wrong end is caught below whatever the speed
        running.listening.set()
        ended = [running.finish(row) for row in rows]
        assert {(answer.finish, answer.last["code"]) for answer in ended} == {("error", "slow_reader")}
        assert running.run([5], 3).finish == "length"


def test_the_log_holds_no_prompt_and_no_answer(llama: Path) -> None:
    with agent() as running:
        running.load(llama)
        word = "swordfish"
        ids = running.ask("tokenize", word, False)["ids"]
        running.run(ids, 5)
        with pytest.raises(QuestionFailed):
            running.ask("tokenize", word, None)
        running.send([word, 1])
        running.ask("shutdown")
        assert running.wait_closed() == 0
        assert word not in running.log()
        assert str(ids)[1:-1] not in running.log()
