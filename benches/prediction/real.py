"""Three models of real MLX on one node with memory for two, whose constants are measured just before.

Owns the making of the models, the calibration and the order of things. A node has one GPU, on which its runtimes take
turns; here a node is one core, which gives each runtime its turn as a GPU would. The client and the coordinator have
the other cores. Refuses another estimate of the constants than what a client sees of single requests.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cluster.harness import ROOT, Process, Room, until
from cluster.prediction import Asked, Figures, Pace, Plan, Round, Spoken, Stream, at_load, figures, predict, send
from cluster.test_mind_swaps import footprint, held

NAMES = ("alpha", "beta", "gamma")
SHAPE = ("--hidden", "256", "--layers", "6", "--vocab", "512", "--ctx", "2048")
NODE, SLOTS, LOAD = "one", 4, 0.5
STREAM = Stream(seconds=150.0, per_s=0.5, prompts=(32, 256), outputs=(8, 40), models=(3.0, 2.0, 1.0))
# Models that have just been loaded stay for half a minute: the stream begins when that is over.
REST_S = 45.0
REPEATS = 5
PROMPTS = (32, 128, 256)


# How far a request alone and a load may take longer or shorter after a round than before it.
STEADY = 1.2


def play(folder: Path, seed: int) -> Round:
    """One round. The control is the calibration once more, afterwards."""
    models = [_made(folder / name) for name in NAMES]
    each = footprint(folder / "scratch", str(folder / NAMES[0]))
    pace = _calibrated(folder / "before", folder / NAMES[0], models[0])
    plan = Plan([[pace] * len(NAMES)], SLOTS, memory_gb=5.0)
    asked = [replace(one, at_s=one.at_s + REST_S) for one in at_load(folder, plan, STREAM, LOAD, seed)]
    asked.insert(0, Asked(0.0, PROMPTS[0], STREAM.outputs[0]))
    predicted, load = predict(folder, plan, asked)
    measured = _measured(folder / "room", each, models, asked)
    after = _calibrated(folder / "after", folder / NAMES[0], models[0])
    return Round(measured, predicted, load, f"before {_told(pace)}; after {_told(after)}", _steady(pace, after))


def _steady(before: Pace, after: Pace) -> bool:
    typical = Asked(0.0, PROMPTS[1], 1)
    pairs = (before.alone_s(typical), after.alone_s(typical)), (before.load_s or 0.0, after.load_s or 0.0)
    return all(max(pair) <= STEADY * min(pair) for pair in pairs)


def _told(pace: Pace) -> str:
    rates = f"{pace.prefill_tps:.0f} tokens/s, step {pace.t1_s * 1e3:.1f} ms, slope {pace.beta:.2f}"
    return f"{rates}, {pace.overhead_s * 1e3:.0f} ms overhead, load {pace.load_s:.1f} s"


def _made(folder: Path) -> Spoken:
    """A model of random weights that says nothing but one letter."""
    maker = [sys.executable, "-m", "tiny_models", str(folder), *SHAPE, "--seed", str(NAMES.index(folder.name))]
    subprocess.run(maker, cwd=ROOT / "python" / "tests", check=True, stdout=subprocess.DEVNULL)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    return Spoken(folder.name, {str(vocabulary["a"]): 100, **{str(end): -100 for end in ends}})


def _measured(folder: Path, each: int, models: list[Spoken], asked: list[Asked]) -> Figures:
    """The models that are loaded first are the first two of the plan."""
    with _room(folder) as room:
        _agent(room, [str(folder.parent / name) for name in NAMES], ["--memory", str(2.5 * each / (1 << 30))])
        until("two of them are in memory", lambda: len(held(room)) == 2)
        order = sorted(models, key=lambda model: model.name not in held(room))
        return figures(send(room, asked, order), [NODE])


def _calibrated(folder: Path, model: Path, spoken: Spoken) -> Pace:
    with _room(folder) as room:
        process = _agent(room, [str(model)], [])
        room.ready(spoken.name)
        first_s: dict[int, float] = {}
        step_s: dict[int, float] = {}
        for prompt in PROMPTS:
            alone = [_send(room, spoken, 1, prompt + repeat) for repeat in range(REPEATS)]
            first_s[prompt], step_s[prompt] = (statistics.median(column) for column in zip(*alone, strict=True))
        pairs = [_send(room, spoken, 2, PROMPTS[0] + 2 * REPEATS + repeat)[1] for repeat in range(REPEATS)]
        tokens_s = statistics.mean((first_s[b] - first_s[a]) / (b - a) for a, b in pairwise(PROMPTS))
        kappa = max(0.0, (step_s[PROMPTS[-1]] - step_s[PROMPTS[0]]) / (PROMPTS[-1] - PROMPTS[0]))
        t1_s = step_s[PROMPTS[0]] - kappa * PROMPTS[0]
        added_s = statistics.median(first_s[prompt] - prompt * tokens_s for prompt in PROMPTS) - t1_s
        beta = max(0.0, (statistics.median(pairs) - 2 * kappa * PROMPTS[0]) / t1_s - 1)
        return Pace(t1_s, beta, 1 / tokens_s, kappa, overhead_s=max(0.0, added_s), load_s=_load_s(room, process))


def _send(room: Room, model: Spoken, together: int, prompt: int) -> tuple[float, float]:
    """The time to the first token and that of a step, the medians of some requests at once."""
    output = STREAM.outputs[1]
    seen = send(room, [Asked(0.0, prompt, output + number) for number in range(together)], [model])
    steps = [(one.done_s - one.first_s) / (one.asked.output_tokens - 1) for one in seen]
    return statistics.median(one.first_s for one in seen), statistics.median(steps)


def _load_s(room: Room, agent: Process) -> float:
    """From the start of a runtime until its model is ready, as the agent's log has it: the median of some lives."""

    def lives() -> list[float]:
        deeds = [re.findall(rf"(\S+)Z .*model {deed} ", agent.said()) for deed in ("starting", "ready")]
        began, ready = ([datetime.fromisoformat(at) for at in all_of_them] for all_of_them in deeds)
        return [(end - start).total_seconds() for start, end in zip(began, ready, strict=False)]

    for life in range(1, REPEATS):
        os.kill(room.runtime_pid(NODE), signal.SIGKILL)
        until("it is back with its model", lambda life=life: len(lives()) > life)
    return statistics.median(lives())


@contextmanager
def _room(folder: Path) -> Iterator[Room]:
    folder.mkdir()
    room = Room(folder)
    try:
        with _on_cores(first=False):
            room.coordinator()
            yield room
    finally:
        room.close()


def _agent(room: Room, models: list[str], more: list[str]) -> Process:
    with _on_cores(first=True):
        return room.agent(NODE, *models, more=["--slots", str(SLOTS), *more])


@contextmanager
def _on_cores(first: bool) -> Iterator[None]:
    """On the first core, or on all others; what is started in between stays there. Only Linux can do that."""
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    cores = sorted(_ALL_CORES)
    os.sched_setaffinity(0, cores[:1] if first else cores[1:] or cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


_ALL_CORES = os.sched_getaffinity(0) if sys.platform == "linux" else set[int]()
