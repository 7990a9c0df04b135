"""The predecessor's defects that show from outside, each as the sentence that must stay true.

Others are proved where they live: prompts of 100 kB and poisoned queues in test_bad_input, cancels in test_hangups,
restarts in test_kills, parameters and messages in the SDK tests, ragged batches in test_real_mlx and in the runtime's
own tests.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from cluster.client import Answer, ask, chat, gather, stream
from cluster.harness import BINARY, DEMO, ROOT, Room, until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    room = Room(tmp_path_factory.mktemp("defects"))
    try:
        room.coordinator()
        room.agent("one", "demo", fake="t1_s=0.01,max_rows=64", more=["--slots", "32"])
        room.ready()
        yield room
    finally:
        room.close()


def test_02_a_long_answer_does_not_kill_the_runtime(served: Room) -> None:
    before = served.runtime_pid("one")
    answer = gather(served.url, [chat(DEMO, max_tokens=3_000)])[0]
    assert answer.clean and answer.usage and answer.usage["completion_tokens"] == 3_000
    assert answer.finish == "length"
    assert served.runtime_pid("one") == before


def test_02_the_bytes_of_an_answer_grow_in_step_with_its_tokens(served: Room) -> None:
    def size(tokens: int) -> int:
        body = {**chat(DEMO, max_tokens=tokens), "stream": True}
        return len(httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60).content)

    few, many = size(100), size(800)
    assert many < 9 * few, f"{few} bytes for 100 tokens, {many} for 800: text is sent again and again"


def test_04_five_bad_model_names_block_no_other_model(served: Room) -> None:
    for number in range(5):
        assert ask(served.url, chat(f"no-such-model-{number}")).status_code == 404
    assert ask(served.url, chat(DEMO, max_tokens=2)).status_code == 200


def test_05_concurrent_requests_run_concurrently(served: Room) -> None:
    peak = 0

    async def watch(stop: asyncio.Event) -> None:
        nonlocal peak
        while not stop.is_set():
            status = await asyncio.to_thread(served.status)
            peak = max(peak, *(model["running"] for model in status["models"]))

    async def storm() -> list[Answer]:
        stop = asyncio.Event()
        watcher = asyncio.create_task(watch(stop))
        answers = await asyncio.gather(*(stream(served.url, chat(DEMO, max_tokens=100)) for _ in range(24)))
        stop.set()
        await watcher
        return list(answers)

    answers = asyncio.run(storm())
    assert all(answer.clean for answer in answers)
    assert peak > 11, f"at most {peak} ran at once: the 11th stream used to be rejected"


@pytest.mark.parametrize("streamed", [False, True])
def test_07_structured_output_is_refused_in_every_mode_until_it_holds(served: Room, streamed: bool) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
    response = ask(served.url, chat(DEMO, response_format=schema, stream=streamed))
    assert response.status_code == 400 and response.json()["error"]["code"] == "unsupported_parameter"
    assert response.json()["error"]["param"] == "response_format"


def test_13_a_request_to_a_killed_node_ends_within_its_deadline(room: Room) -> None:
    room.coordinator()
    agent = room.agent("one", "demo", fake="t1_s=0.1")
    room.ready()
    seen: list[float] = []

    def kill(answer: Answer) -> None:
        if len(answer.pieces) == 2 and agent.alive():
            agent.kill()
            seen.append(time.monotonic())

    deadline = {"x-request-timeout-ms": "9000"}
    answer = asyncio.run(stream(room.url, chat(DEMO, max_tokens=50), kill, headers=deadline))
    ended_s = time.monotonic() - seen[0]
    # Another node could go on; there is none, and the client said how long it waits.
    assert not answer.clean and answer.error is not None
    # It hung for more than 22 once.
    assert ended_s < 22, f"{ended_s:.1f} s"


def test_13_a_deadline_ends_a_request_that_nobody_can_serve(room: Room) -> None:
    room.coordinator()
    agent = room.agent("one", "demo", fake="t1_s=0.01")
    room.ready()
    agent.kill()
    until("the node is out of rotation", lambda: not room.status()["nodes"][0]["connected"])
    headers = {"x-stainless-read-timeout": "2"}
    response = httpx.post(f"{room.url}/v1/chat/completions", json=chat(DEMO), headers=headers, timeout=60)
    assert response.status_code in (408, 503, 504), response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_14_a_success_is_counted_at_the_end_of_the_answer(served: Room) -> None:
    def successes() -> float:
        lines = httpx.get(f"{served.url}/metrics").text.splitlines()
        found = [
            line for line in lines if line.startswith(("vllm:request_success_total", "vllm_request_success_total"))
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    before, during = successes(), []

    def look(answer: Answer) -> None:
        if len(answer.pieces) == 5:
            during.append(successes())

    answer = asyncio.run(stream(served.url, chat(DEMO, max_tokens=60), look))
    assert answer.clean
    assert during == [before], "counted before the end"
    assert successes() == before + 1


def test_the_queue_is_visible_as_gauges_and_empty_when_all_is_done(served: Room) -> None:
    def gauge(name: str) -> list[float]:
        lines = httpx.get(f"{served.url}/metrics").text.splitlines()
        return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{")]

    async def peak() -> float:
        work = asyncio.gather(*(stream(served.url, chat(DEMO, max_tokens=60)) for _ in range(4)))
        seen = 0.0
        while not work.done():
            seen = max(seen, *await asyncio.to_thread(gauge, "vllm:num_requests_running"))
        await work
        return seen

    assert asyncio.run(peak()) >= 2
    # The client may read its last byte a moment before the scheduler hears of the end.
    until("nothing runs", lambda: gauge("vllm:num_requests_running") == [0.0])
    assert gauge("vllm:num_requests_waiting") == [0.0]


def test_20_the_first_tokens_cannot_be_lost(served: Room) -> None:
    """The fake runtime's tokens depend on prompt and position only, so every answer must be the same."""
    answers = gather(served.url, [chat(DEMO, "the same prompt", max_tokens=20)] * 100)
    assert all(answer.clean for answer in answers)
    assert len({answer.text for answer in answers}) == 1
    assert all(answer.usage and answer.usage["completion_tokens"] == 20 for answer in answers)


def test_11_every_command_in_the_readme_is_understood() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^(?:cargo run -- |mlx-serving )([a-z].*)$", readme, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        words = shlex.split(command.split("#")[0])
        # The verbs and each flag must exist; nothing is started.
        verbs = words[:2] if words[0] in ("token", "nodes", "keys") else words[:1]
        shown = subprocess.run([BINARY, *verbs, "--help"], capture_output=True, text=True, check=True).stdout
        for flag in (word for word in words if word.startswith("--")):
            assert flag in shown, f"{command}: {flag} is unknown"


def test_a_stopped_process_says_so_with_code_130_on_the_second_signal(room: Room) -> None:
    process = room.coordinator()
    room.agent("one", "demo", fake="t1_s=0.2")
    room.ready()

    async def interrupt_twice() -> Answer:
        def signals(answer: Answer) -> None:
            if len(answer.pieces) == 2:
                process.send(signal.SIGINT)
                time.sleep(0.3)
                process.send(signal.SIGINT)

        return await stream(room.url, chat(DEMO, max_tokens=100), signals)

    answer = asyncio.run(interrupt_twice())
    assert process.wait() == 130
    assert not answer.clean and answer.broken
