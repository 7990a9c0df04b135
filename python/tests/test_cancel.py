"""Cancelling: in the queue, in prefill, while decoding; and two hundred at random, which leave nothing behind."""

import random

from agent import Agent
from test_generation import prompt


def test_a_cancel_reaches_a_queued_a_prefilling_and_a_decoding_row(runtime: Agent) -> None:
    decoding = runtime.start(prompt(5), 1500)
    runtime.tokens_of(decoding, 1)
    prefilling = runtime.start(prompt(2000), 40)
    others = [runtime.start(prompt(4), 1500) for _ in range(10)]
    queued = runtime.start(prompt(4), 1500)
    states = {row[0]: row[1] for row in runtime.ask("list")["rows"]}
    assert states[decoding] == "decode"
    assert states[queued] == "queued"
    runtime.send(["cancel", [decoding, prefilling, queued, *others, 10**15]])
    assert {runtime.finish(row).finish for row in (decoding, prefilling, queued, *others)} == {"cancelled"}
    assert runtime.answers[queued].last["generated"] == 0
    assert runtime.answers[decoding].last["generated"] == len(runtime.answers[decoding].ids)
    assert runtime.ask("list") == {"rows": []}


def test_two_hundred_random_cancels_leave_no_row_and_no_memory(runtime: Agent) -> None:
    chance = random.Random(5)
    expected = runtime.run(prompt(50), 8).ids
    before = runtime.ask("info")["active_bytes"]
    live: list[int] = []
    for _ in range(200):
        sampling = {"temperature": chance.choice([0.0, 1.0]), "presence_penalty": chance.choice([0.0, 0.5])}
        top_logprobs = chance.choice([None, 2])
        live.append(runtime.start(prompt(chance.randint(1, 400)), 300, sampling, top_logprobs=top_logprobs))
        if chance.random() < 0.3:
            runtime.tokens_of(chance.choice(live), chance.randint(0, 5))
        if len(live) > 20 or chance.random() < 0.5:
            runtime.send(["cancel", [live.pop(chance.randrange(len(live))) for _ in range(min(len(live), 3))]])
    runtime.send(["cancel", live])
    runtime.wait(lambda: all(answer.finish for answer in runtime.answers.values()))
    assert runtime.ask("list") == {"rows": []}
    after = runtime.ask("info")
    assert (after["running"], after["queued"]) == (0, 0)
    assert after["active_bytes"] - before <= 4096
    assert {answer.finish for answer in runtime.answers.values()} <= {"cancelled", "length"} | {"stop"}
    assert runtime.run(prompt(50), 8).ids == expected
