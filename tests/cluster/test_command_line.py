"""The command line as a person and as a script use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.harness import BINARY, DEMO, Room, free_port, until


def run(*arguments: str, feed: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MLX_SERVING_PYTHON_ENV": sys.prefix}
    return subprocess.run(
        [BINARY, *arguments], capture_output=True, text=True, check=False, timeout=120, input=feed, env=environment
    )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    room = Room(tmp_path_factory.mktemp("command-line"))
    try:
        room.up()
        room.ready()
        yield room
    finally:
        room.close()


def test_up_prints_the_machine_the_model_an_answer_and_the_lines_to_try(up: Room) -> None:
    until("the first answer", lambda: "Ctrl-C" in up.processes[0].said())
    words = up.processes[0].said()
    for part in ["machine", DEMO, f"{up.url}/v1", "curl", "OpenAI(base_url=", "What is mlx-serving?"]:
        assert part in words, words
    assert "no answer" not in words, words
    assert f"\n{up.url}/v1\n" in words, "the URL alone on a line is for scripts"


def test_chat_answers_one_question(up: Room) -> None:
    done = run("chat", "--url", up.url, "What is mlx-serving?")
    assert done.returncode == 0, done.stderr
    assert "mac" in done.stdout.lower() or "endpoint" in done.stdout.lower(), done.stdout


def test_chat_reads_a_question_from_a_pipe(up: Room) -> None:
    done = run("chat", "--url", up.url, feed="Hello\n")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_chat_with_an_unknown_model_is_code_4_and_names_the_close_one(up: Room) -> None:
    done = run("chat", "--url", up.url, "--model", "mlx-serving-dem", "x")
    assert done.returncode == 4
    assert DEMO in done.stderr, done.stderr


def test_status_is_a_table_for_people_and_json_for_scripts(up: Room) -> None:
    table = run("status", "--url", up.url)
    assert table.returncode == 0, table.stderr
    assert "MODEL" in table.stdout and DEMO in table.stdout
    document = json.loads(run("status", "--url", up.url, "--output", "json").stdout)
    assert document["schema"] == "mlx-serving.status/1"
    node = document["nodes"][0]
    assert node["memory_bytes"] > 1 << 30 and node["gpu_budget_bytes"] > 1 << 20 and node["chip"], node


def test_explain_tells_of_a_model_and_a_node_in_words_and_for_scripts(up: Room) -> None:
    words = run("explain", "model", DEMO, "--url", up.url)
    assert words.returncode == 0 and words.stdout.startswith(DEMO), words.stderr
    document = json.loads(run("explain", "node", "1", "--url", up.url, "--output", "json").stdout)
    assert document["schema"] == "mlx-serving.explain.v1" and DEMO in document["models"], document


@pytest.mark.parametrize(("subject", "name"), [("model", DEMO[:-1]), ("node", "nobody"), ("request", "req_nobody")])
def test_explain_of_a_stranger_is_code_4(up: Room, subject: str, name: str) -> None:
    done = run("explain", subject, name, "--url", up.url)
    assert done.returncode == 4 and name in done.stderr and not done.stdout
    assert subject != "model" or DEMO in done.stderr, "the close name is told"


def test_an_idle_queue_is_told_in_words_and_for_scripts(up: Room) -> None:
    assert run("queue", "--url", up.url).stdout.startswith("nothing waits")
    document = json.loads(run("queue", "--url", up.url, "--output", "json").stdout)
    assert document["schema"] == "mlx-serving.queue.v1" and document["waiting"] == []


@pytest.mark.parametrize("command", [["status"], ["chat", "x"], ["queue"], ["explain", "node", "x"]])
def test_nobody_there_is_code_6_and_says_how_to_start(command: list[str]) -> None:
    done = run(*command, "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 6
    assert "mlx-serving up" in done.stderr


def test_a_wrong_model_argument_is_code_4_and_names_the_alternatives(tmp_path: Path) -> None:
    done = run("up", "--home", str(tmp_path), "--model", "./no/such/folder")
    assert done.returncode == 4
    for part in ["does not exist", "hub id", "demo model"]:
        assert part in done.stderr, done.stderr


def test_a_folder_without_safetensors_is_refused_with_what_was_found(tmp_path: Path) -> None:
    model = tmp_path / "pickled"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"x")
    ports = ["--port", str(free_port()), "--cluster-port", str(free_port())]
    done = run("up", "--home", str(tmp_path / "home"), "--model", str(model), *ports)
    assert done.returncode != 0
    assert "safetensors" in done.stderr and ".bin" in done.stderr, done.stderr


def test_a_port_in_use_names_the_flag(up: Room, tmp_path: Path) -> None:
    done = run("up", "--home", str(tmp_path), "--port", str(up.api_port), "--cluster-port", str(free_port()))
    assert done.returncode == 1
    assert "up --port" in done.stderr and "coordinator --api" in done.stderr, done.stderr


def test_a_folder_with_a_cluster_of_its_own_joins_no_other_and_the_token_is_kept(tmp_path: Path) -> None:
    (tmp_path / "coordinator" / "registry").mkdir(parents=True)
    contact = f"127.0.0.1:{free_port()}"
    done = run("coordinator", "--home", str(tmp_path), "--join", contact, "--token", "mlxc1.aa.bb.cc")
    assert done.returncode == 8, done.stderr
    for part in ["a cluster of its own", "--home", "not used"]:
        assert part in done.stderr, done.stderr


@pytest.mark.parametrize("founded", [False, True], ids=["nothing founded", "up ran before"])
def test_up_takes_no_mac_out_of_another_cluster(tmp_path: Path, founded: bool) -> None:
    room, here = Room(tmp_path), Room(tmp_path)
    try:
        room.coordinator()
        if founded:
            ran = here.up(home=tmp_path / "mini")
            until("it has founded", lambda: here.answers("/readyz"))
            ran.kill()
        agent = room.agent("mini", "demo", fake="")
        room.ready()
        agent.kill()
        membership = tmp_path / "mini" / "agent" / "identity" / "membership.json"
        before = membership.read_bytes()
        ended = here.up(home=tmp_path / "mini")
        assert ended.wait() == 8, ended.said()
        for part in ["another cluster", "mlx-serving agent", "--home"]:
            assert part in ended.said()
        assert membership.read_bytes() == before
        assert founded == (tmp_path / "mini" / "coordinator" / "registry").exists()
        agent.start()
        room.ready()
    finally:
        room.close()
        here.close()


def test_a_home_in_use_says_so(up: Room) -> None:
    ports = ["--port", str(free_port()), "--cluster-port", str(free_port())]
    done = run("up", "--home", str(up.folder / "up-home"), *ports)
    assert done.returncode == 1
    assert "use" in done.stderr or "lock" in done.stderr or "running" in done.stderr, done.stderr


def test_a_token_is_printed_alone(up: Room) -> None:
    home = ["--home", str(up.folder / "up-home")]
    for words in (["show"], ["create", "--url", up.url]):
        done = run("token", *words, *home)
        assert done.returncode == 0 and done.stdout.startswith("mlxc1.") and done.stdout.count("\n") == 1, done.stderr
    missing = run("token", "show", "--home", str(up.folder / "nowhere"))
    assert missing.returncode == 4 and "coordinator" in missing.stderr


def test_help_teaches() -> None:
    words = run("--help").stdout
    for part in ["up", "coordinator", "agent", "chat", "status", "token", "Examples"]:
        assert part in words
    assert "guard" not in words
