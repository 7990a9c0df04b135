"""The faults of the fake runtime: each breaks what it says and nothing else, when it says, for the rows it says."""

from pathlib import Path

import pytest

from agent import Agent, QuestionFailed, agent
from fake_runtime.knobs import Knobs, Switches, parse
from mlx_runtime.backend import Start
from mlx_runtime.protocol import Generate
from test_fake_runtime import backend_of, shape
from test_generation import prompt

MARK = 77


def put(file: Path, text: str) -> None:
    """Another file in the place of this one."""
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").rename(file)


def phases(running: Agent) -> list[str]:
    """What the signs of life said."""
    return [frame[1]["phase"] for frame in running.frames if frame[0] == "progress"]


# --- knobs ---


def test_knobs_come_from_the_environment_and_the_command_line_wins() -> None:
    path, switches = parse(["--socket", "s", "--t1-s", "0.5"], {"FAKE_RUNTIME": "t1_s=0.1, beta=0.2,refuse=busy"})
    assert (path, switches.now()) == ("s", Knobs(t1_s=0.5, beta=0.2, refuse="busy"))


@pytest.mark.parametrize("wrong", ["t2_s=1", "t1=1", "exit_after=1.5", "refuse=no", "load_fault=later", "exit_after"])
def test_a_knob_that_is_misspelt_ends_the_process(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        parse(["--socket", "s"], {"FAKE_RUNTIME": wrong})
    put(tmp_path / "knobs", wrong)
    with pytest.raises(SystemExit):
        Switches(Knobs(), tmp_path / "knobs").now()


def test_a_file_of_knobs_wins_while_it_is_there_and_is_read_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "knobs"
    _, switches = parse(["--socket", "s"], {"FAKE_RUNTIME": f"file={file},t1_s=1,beta=2"})
    assert switches.now() == Knobs(t1_s=1, beta=2)
    put(file, "t1_s=3\nslow=0.5, \n")
    assert [switches.now() for _ in range(2)] == [Knobs(t1_s=3, beta=2, slow=0.5)] * 2
    put(file, "slow=0.7\n")
    assert switches.now() == Knobs(t1_s=1, beta=2, slow=0.7)
    file.unlink()
    assert switches.now() == Knobs(t1_s=1, beta=2)


def test_faults_are_switched_on_and_off_in_a_running_process(llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "knobs"
    with agent("fake_runtime", "--file", str(file)) as fake:
        fake.load(llama)
        truth = fake.run(prompt(30), 6).ids
        put(file, "lie_after=1")
        assert not set(zip(fake.run(prompt(30), 6).ids, truth, strict=True)) & set(zip(truth, truth, strict=True))
        put(file, "refuse=busy")
        assert fake.run(prompt(30), 6).last["code"] == "busy"
        file.unlink()
        assert fake.run(prompt(30), 6).ids == truth
        put(file, "abort_after=1")
        row = fake.start(prompt(30), 6)
        assert fake.wait_closed() == -6
        assert row not in fake.answers


# --- load ---


def test_a_load_that_hangs_gives_no_sign_of_life_and_still_dies_with_its_agent(llama: Path) -> None:
    with agent("fake_runtime", "--load-fault", "hang", "--load-s", "0.1") as fake:
        fake.question("load", {"path": str(llama)})
        with pytest.raises(TimeoutError):
            fake.wait(lambda: phases(fake).count("loading") == 2, 1.5)  # a sign is due each half second
        assert (phases(fake).count("loading"), fake.replies) == (1, {})


def test_a_slow_load_gives_signs_of_life(llama: Path) -> None:
    with agent("fake_runtime", "--load-s", "1.2") as fake:
        fake.load(llama)
        fractions = [frame[1]["fraction"] for frame in fake.frames if frame[0] == "progress"]
        assert len([one for one in fractions if one]) >= 3


def test_a_load_aborts_or_fails_with_a_code(llama: Path) -> None:
    with agent("fake_runtime", "--load-fault", "abort") as fake:
        fake.question("load", {"path": str(llama)})
        assert fake.wait_closed() == -6
    with agent("fake_runtime", env={"FAKE_RUNTIME": "load_fault=out_of_memory"}) as fake:
        with pytest.raises(QuestionFailed) as caught:
            fake.load(llama)
        assert caught.value.code == "out_of_memory"
        assert fake.ask("info")["loaded"] is False


# --- the process ---


def test_a_lying_fake_tells_other_tokens_in_frames_like_any(llama: Path) -> None:
    with agent("fake_runtime") as honest, agent("fake_runtime", "--lie-after", "12") as liar:
        honest.load(llama)
        liar.load(llama)
        truth = honest.run(prompt(30), 10)
        assert liar.run(prompt(30), 10).ids == truth.ids
        turning = liar.run(prompt(30), 10)
        assert turning.ids[:2] == truth.ids[:2]
        assert all(lie != token for lie, token in zip(turning.ids[2:], truth.ids[2:], strict=True))
        lies = [liar.run(prompt(30), 10) for _ in range(2)]
        assert lies[0].ids == lies[1].ids
        assert all(lie != token for lie, token in zip(lies[0].ids, truth.ids, strict=True))
        assert shape(lies[0].last) == shape(truth.last)


@pytest.mark.parametrize(("fault", "status"), [("exit-after", 5), ("truncate-after", 5)])
def test_a_fake_runtime_dies_when_told(fault: str, status: int, llama: Path) -> None:
    with agent("fake_runtime", f"--{fault}", "6", "--exit-status", str(status)) as fake:
        fake.load(llama)
        row = fake.start([20], 50)
        assert fake.wait_closed() == status
        fake.wait(lambda: fake.closed)
        assert len(fake.answers[row].ids) == 6


def test_a_fake_runtime_crashes_on_a_marker(llama: Path) -> None:
    with agent("fake_runtime", "--crash-token", "77") as fake:
        fake.load(llama)
        assert fake.run([20], 2).finish == "length"
        fake.start([20, 77], 2)
        assert fake.wait_closed() == -6


def test_a_fake_runtime_hangs_without_a_sign_of_life_and_still_dies_with_its_agent(llama: Path) -> None:
    with agent("fake_runtime", "--hang-after", "4") as fake:
        fake.load(llama)
        row = fake.start([20], 50)
        fake.tokens_of(row, 4)
        fake.question("info")
        fake.send(["nonsense", 7])
        fake.wait(lambda: bool(fake.errors))
        assert len(fake.answers[row].ids) == 4
        assert not [frame for frame in fake.frames if frame[0] == "reply" and frame[1] == 2]


def test_a_fake_runtime_sends_garbage_once_and_goes_on(llama: Path) -> None:
    with agent("fake_runtime", "--garbage-after", "3") as fake:
        fake.load(llama)
        assert fake.run([20], 10).finish == "length"
        assert fake.garbled == 1


def test_a_fake_runtime_counts_wrongly_and_fails_a_batch_when_told(llama: Path) -> None:
    with agent("fake_runtime", env={"FAKE_RUNTIME": "wrong_count=2,fail_token=77"}) as fake:
        fake.load(llama)
        answer = fake.run([20], 5)
        assert (len(answer.ids), answer.last["generated"]) == (5, 7)
        assert fake.run([77, 20], 5).last["code"] == "internal"


def test_with_a_mark_only_the_tokens_of_marked_rows_count(llama: Path) -> None:
    with agent("fake_runtime", "--abort-after", "5", "--mark-token", str(MARK)) as fake:
        fake.load(llama)
        for ids in ([20], [20, MARK], [20, 21]):
            assert fake.run(ids, 4).finish == "length"
        assert len(fake.run([20], 50).ids) == 50
        # A mark in what is replayed is none: the words of an answer are chance.
        assert len(fake.run([20, MARK], 50, generated=1).ids) == 50
        row = fake.start([20, MARK, 21], 50, generated=1)
        assert fake.wait_closed() == -6
        fake.wait(lambda: fake.closed)
        assert len(fake.answers[row].ids) == 5


def test_a_fake_runtime_grows_slow(llama: Path) -> None:
    backend, slept = backend_of(llama, Knobs(t1_s=1.0, slow_after=2, slow_factor=7.0))
    backend.start([Start(Generate(1, (20,), 9))])
    backend.promote([1])
    for _ in range(4):
        backend.decode()
    assert slept == [1.0, 1.0, 7.0, 7.0]


# --- frames ---


def test_marked_rows_are_refused_with_a_code(llama: Path) -> None:
    with agent("fake_runtime", "--refuse", "out_of_memory", "--mark-token", str(MARK)) as fake:
        fake.load(llama)
        refused = fake.run([MARK], 3)
        assert (refused.ids, refused.finish, refused.last["code"]) == ([], "error", "out_of_memory")
        assert fake.run([20], 3).finish == "length"


def test_ids_outside_the_vocabulary_are_told_of_marked_rows(llama: Path) -> None:
    with agent("fake_runtime", "--outside-after", "2", "--mark-token", str(MARK)) as fake:
        vocab_size = fake.load(llama)["vocab_size"]
        rows = [fake.start(ids, 5) for ids in ([20, MARK], [20])]
        assert [[one >= vocab_size for one in fake.finish(row).ids] for row in rows] == [
            [False, False, True, True, True],
            [False] * 5,
        ]


@pytest.mark.parametrize(("fault", "told"), [("skip_at", [0, 1, 3, 4]), ("repeat_at", [0, 1, 2, 2, 3, 4])])
def test_a_token_is_left_out_or_sent_twice(fault: str, told: list[int], llama: Path) -> None:
    with (
        agent("fake_runtime", env={"FAKE_RUNTIME": f"{fault}=3,mark_token={MARK}"}) as fake,
        agent("fake_runtime") as sane,
    ):
        fake.load(llama)
        sane.load(llama)
        truth = sane.run([20, MARK], 5)
        answer = fake.run([20, MARK], 5)
        assert answer.ids == [truth.ids[place] for place in told]
        assert {**answer.last, "queued_s": 0, "prefill_s": 0} == {**truth.last, "queued_s": 0, "prefill_s": 0}
        assert fake.run([20], 5).ids == sane.run([20], 5).ids


def test_a_row_is_named_once_more_after_its_end(llama: Path) -> None:
    with agent("fake_runtime", env={"FAKE_RUNTIME": f"ghosts=1,mark_token={MARK},t1_s=0.01"}) as fake:
        fake.load(llama)
        fake.run([20], 2)
        fake.start([20, MARK], 2)
        fake.wait(lambda: bool(fake.faults))
        cancelled = fake.start([21, MARK], 2000)
        fake.tokens_of(cancelled, 1)
        fake.send(["cancel", [cancelled]])
        fake.wait(lambda: len(fake.faults) == 2)
        assert fake.faults == ["row 2 was named after its end", "row 3 was named after its end"]
        fake.faults.clear()


def test_a_failed_model_call_ends_a_row_after_so_many_tokens(llama: Path) -> None:
    with agent("fake_runtime", "--fail-after", "3", "--mark-token", str(MARK)) as fake:
        fake.load(llama)
        cut, other = fake.run([20, MARK], 9), fake.run([20], 9)
        assert (cut.finish, cut.last["code"], len(cut.ids)) == ("error", "internal", 3)
        assert (other.finish, len(other.ids)) == ("length", 9)


def test_an_end_that_is_lost_is_a_failure_behind_the_last_token(llama: Path) -> None:
    with agent("fake_runtime", "--lose-end", "1", "--mark-token", str(MARK)) as fake:
        fake.load(llama)
        lost, other = fake.run([20, MARK], 3), fake.run([20], 3)
        assert (lost.finish, lost.last["code"], len(lost.ids)) == ("error", "internal", 3)
        assert (other.finish, len(other.ids)) == ("length", 3)


@pytest.mark.parametrize("fault", ["fail_after=2", "lose_end=1", f"fail_token={MARK}"])
def test_where_one_fault_is_all_it_comes_once_among_all_who_read_the_file(
    fault: str, llama: Path, tmp_path: Path
) -> None:
    file = tmp_path / "knobs"
    with agent("fake_runtime", "--file", str(file)) as one, agent("fake_runtime", "--file", str(file)) as two:
        for fake in (one, two):
            fake.load(llama)
        put(file, f"once=1,{fault}")
        ends = [fake.run([20, MARK], 4).finish for fake in (one, two, one)]
        assert (ends, file.exists()) == (["error", "length", "length"], False)
        put(file, f"once=1,{fault}")
        assert [fake.run([20, MARK], 4).finish for fake in (two, one)] == ["error", "length"]
