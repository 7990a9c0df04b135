"""One stream of requests twice: through the simulator, and through a room of real processes with the same constants.

Owns the workload, the experiment as the simulator reads it, the client that sends when the trace says and not when it
has an answer, and the figures of both sides. Refuses to judge: what is near enough is up to whoever compares.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from cluster.client import TIMEOUT_S, Answer, read
from cluster.harness import BINARY, DEMO, ENDLESS, Room

# The agents of these tests run on chips of no table, so their coordinator is told no speed beforehand.
POLICY = "mlx-serving-blind"
# The simulator's only chance is how much one request's work differs from the next: a few draws average it out.
SEEDS = 8
# Tokens that stand for plain text in every tokenizer of these tests.
FIRST_TOKEN, TOKENS = 10, 400


@dataclass(frozen=True)
class Pace:
    """How fast one model runs on one node: the constants of the cost model, in seconds."""

    t1_s: float
    beta: float
    prefill_tps: float
    kappa: float = 0.0
    pair_s: float = 0.0
    overhead_s: float = 0.0
    load_s: float | None = None

    def alone_s(self, asked: Asked) -> float:
        """The time to the first token of a request that is alone. The last prompt token is fed to the first step."""
        tokens = asked.prompt_tokens - 1
        read_s = tokens / self.prefill_tps + self.pair_s * tokens * tokens / 2
        return self.overhead_s + read_s + self.t1_s + self.kappa * asked.prompt_tokens

    def knobs(self) -> str:
        """For a fake runtime."""
        known = {"t1_s": self.t1_s, "beta": self.beta, "kappa": self.kappa, "prefill_tps": self.prefill_tps}
        return ",".join(f"{name}={value}" for name, value in known.items())

    def speed(self) -> dict[str, float | None]:
        """For the simulator."""
        return {
            "step_s": self.t1_s,
            "batch_slope": self.beta,
            "kv_token_s": self.kappa,
            "prefill_tokens_per_s": self.prefill_tps,
            "attention_pair_s": self.pair_s,
            "overhead_s": self.overhead_s,
            "load_s": self.load_s,
        }


@dataclass(frozen=True)
class Spoken:
    """A model by its name, and the logit_bias with which each of its tokens is text and none is the end."""

    name: str
    bias: dict[str, int]


DEMO_SPOKEN = Spoken(DEMO, ENDLESS)


@dataclass(frozen=True)
class Asked:
    """A request of the trace. `model` is an index."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    model: int = 0


@dataclass(frozen=True)
class Stream:
    """A Poisson stream: lengths are even between their bounds, models are asked for by their weights."""

    seconds: float
    per_s: float
    prompts: tuple[int, int]
    outputs: tuple[int, int]
    models: tuple[float, ...] = (1.0,)

    def lasting(self, seconds: float) -> Stream:
        """The same for longer or shorter."""
        return replace(self, seconds=seconds)

    def draw(self, seed: int) -> list[Asked]:
        """The same seed, the same requests; a faster stream has the same lengths closer together."""
        return list(self._drawn(random.Random(seed)))

    def _drawn(self, chance: random.Random) -> Iterator[Asked]:
        at_s = chance.expovariate(1.0) / self.per_s
        while at_s < self.seconds:
            lengths = chance.randint(*self.prompts), chance.randint(*self.outputs)
            (model,) = chance.choices(range(len(self.models)), self.models)
            yield Asked(at_s, *lengths, model)
            at_s += chance.expovariate(1.0) / self.per_s


@dataclass(frozen=True)
class Figures:
    """Latencies in seconds, and the share of the requests that each node got."""

    requests: int
    answered: int
    ttft_s: dict[str, float]
    done_s: dict[str, float]
    shares: list[float]

    def line(self) -> str:
        """For people."""
        ttft, done = self.ttft_s, self.done_s
        shares = " ".join(f"{share:.2f}" for share in self.shares)
        return (
            f"TTFT mean {ttft['mean']:.3f} p50 {ttft['p50']:.3f} p95 {ttft['p95']:.3f}; "
            f"done mean {done['mean']:.3f} p50 {done['p50']:.3f} p95 {done['p95']:.3f}; "
            f"{self.answered} of {self.requests}; shares {shares}"
        )


@dataclass(frozen=True)
class Round:
    """What one room did and what was predicted of it."""

    measured: Figures
    predicted: Figures
    load: float
    control: str
    steady: bool = True

    @property
    def ratio(self) -> float:
        """Mean times to the first token, measured by predicted."""
        return self.measured.ttft_s["mean"] / self.predicted.ttft_s["mean"]


@dataclass(frozen=True)
class Plan:
    """A room as the simulator knows it: the paces of each node by model."""

    nodes: Sequence[Sequence[Pace]]
    slots: int
    # Sizes of the simulator's table stand for memory only: a large Mac holds all, and 5 GB hold two of three.
    memory_gb: float = 64.0
    placed: int | None = None

    def experiment(self) -> dict[str, Any]:
        """What `simulate --file` reads."""
        macs = [
            {"chip": "M1", "memory_gb": self.memory_gb, "measured": [pace.speed() for pace in node]}
            for node in self.nodes
        ]
        models = ["1b"] * len(self.nodes[0])
        fleet = {"macs": macs, "models": models, "placed": self.placed, "rows_max": self.slots}
        workload = {"length_scale": 1.0, "tenants": 1, "load": None}
        return {"name": "prediction", "fleet": fleet, "workload": workload, "policies": [POLICY], "seeds": SEEDS}


def predict(folder: Path, plan: Plan, asked: Sequence[Asked], policy: str = POLICY) -> tuple[Figures, float]:
    """What the simulator says, and which share of the room's capacity these requests ask for."""
    experiment, trace = folder / "experiment.json", folder / "trace.jsonl"
    experiment.write_text(json.dumps(plan.experiment()))
    trace.write_text("".join(json.dumps(_line(one)) + "\n" for one in asked))
    command = [BINARY, "simulate", "--file", experiment, "--trace", trace, "--policy", policy, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    report = json.loads(done.stdout)
    scores = [score for _, score in report["rows"][0]["runs"]]
    load = float(report["bounds"]["offered_load"])
    return _figures_of(scores, len(plan.nodes)), load


def at_load(folder: Path, plan: Plan, stream: Stream, load: float, seed: int) -> list[Asked]:
    """The stream at the pace that asks for that share of the room's capacity."""
    _, offered = predict(folder, plan, stream.draw(seed))
    return replace(stream, per_s=stream.per_s * load / offered).draw(seed)


@dataclass
class Seen:
    """What a client saw of one request."""

    asked: Asked
    first_s: float = math.nan
    done_s: float = math.nan
    answer: Answer = field(default_factory=Answer)
    node: str = ""


def measure(
    room: Room, asked: Sequence[Asked], names: Sequence[str], models: Sequence[Spoken] = (DEMO_SPOKEN,)
) -> Figures:
    """What the room does: each request is sent when its time has come, whatever has become of the others."""
    return figures(send(room, asked, models), names)


def send(room: Room, asked: Sequence[Asked], models: Sequence[Spoken] = (DEMO_SPOKEN,)) -> list[Seen]:
    """All of them, and where each went."""
    seen = asyncio.run(_send_all(room, asked, models))
    for one in seen:
        one.node = _node_of(room, one.answer)
    return seen


def added_alone(room: Room, plan: Plan, names: Sequence[str], requests: int = 9) -> float:
    """The control: what an idle room adds to the first token beyond what its node computes; the median of a few."""
    added: list[float] = []
    for number in range(requests):
        (seen,) = send(room, [Asked(0.0, 300 + number, 2)])
        added.append(seen.first_s - plan.nodes[names.index(seen.node)][0].alone_s(seen.asked))
    return statistics.median(added)


def figures(seen: Sequence[Seen], names: Sequence[str]) -> Figures:
    """Sums them up."""
    clean = [one for one in seen if one.answer.clean]
    count = Counter(one.node for one in seen)
    shares = [count[name] / max(1, len(seen)) for name in names]
    ttft_s, done_s = ([getattr(one, name) for one in clean] for name in ("first_s", "done_s"))
    return Figures(len(seen), len(clean), _summed(ttft_s), _summed(done_s), shares)


async def _send_all(room: Room, asked: Sequence[Asked], models: Sequence[Spoken]) -> list[Seen]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as client:
        began = asyncio.get_running_loop().time()
        seen = [Seen(one) for one in asked]
        await asyncio.gather(*(_send(client, room, began, one, models) for one in seen))
        return seen


async def _send(client: httpx.AsyncClient, room: Room, began: float, seen: Seen, models: Sequence[Spoken]) -> None:
    asked, answer = seen.asked, seen.answer
    body = request(models[asked.model], asked)
    await asyncio.sleep(began + asked.at_s - asyncio.get_running_loop().time())
    sent = time.monotonic()
    async with client.stream("POST", f"{room.url}/v1/completions", json=body) as response:
        answer.status, answer.headers = response.status_code, dict(response.headers)
        async for _ in read(response, answer):
            if math.isnan(seen.first_s):
                seen.first_s = time.monotonic() - sent
    seen.done_s = time.monotonic() - sent


def request(model: Spoken, asked: Asked) -> dict[str, Any]:
    """A streamed completion of exactly so many tokens, after a prompt that no other request begins like."""
    chance = random.Random(str(asked))
    prompt = [FIRST_TOKEN + chance.randrange(TOKENS) for _ in range(asked.prompt_tokens)]
    body = {"model": model.name, "prompt": prompt, "max_tokens": asked.output_tokens, "logit_bias": model.bias}
    return {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0, **body}


def _node_of(room: Room, answer: Answer) -> str:
    number = answer.headers.get("x-mlx-request", "")
    words = str(httpx.get(f"{room.url}/api/v1/explain/request/{number}", timeout=TIMEOUT_S).json().get("words"))
    went = re.search(r"went to (\S+), attempt", words)
    return went[1] if went else ""


def _line(one: Asked) -> dict[str, Any]:
    return {
        "timestamp": one.at_s * 1e3,
        "input_length": one.prompt_tokens,
        "output_length": one.output_tokens,
        "max_length": one.output_tokens,
        "model": one.model,
        "hash_ids": [],
    }


def _figures_of(scores: list[dict[str, Any]], nodes: int) -> Figures:
    def mean(latencies: str) -> dict[str, float]:
        all_of_them = [score["all"][latencies] for score in scores]
        return {name: sum(one[name] for one in all_of_them) / len(scores) for name in ("mean", "p50", "p95")}

    requests = int(scores[0]["all"]["requests"])
    answered = round(requests * (1.0 - max(score["all"]["shed"] for score in scores)))
    counts = [
        sum(score["by_node"].get(str(node), {"requests": 0})["requests"] for score in scores) for node in range(nodes)
    ]
    shares = [count / (requests * len(scores)) for count in counts]
    return Figures(requests, answered, mean("first_token"), mean("completion"), shares)


def _summed(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [math.nan]

    def quantile(share: float) -> float:
        return ordered[max(0, math.ceil(len(ordered) * share) - 1)]

    return {"mean": sum(ordered) / len(ordered), "p50": quantile(0.5), "p95": quantile(0.95)}


def as_json(rounds: Sequence[Round]) -> str:
    """All figures, for a file."""
    return json.dumps([asdict(one) for one in rounds], indent=1)
