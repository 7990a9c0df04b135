"""Answers to be cut: what is asked, where it is cut and by what, and what an honest service says all the same.

Owns the shapes of requests with the text each must bring, the room with its trap (a file of knobs that the first fault
of any runtime takes away, so that an answer is cut once, wherever it runs), and what right and broken answers are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from cluster.client import TIMEOUT_S
from cluster.harness import DEMO, DEMO_FOLDER, Process, Room
from cluster.reference import AMONG, PLAIN, UNHEARD, Question, text_of, told
from cluster.transcript import Transcript, transcribe
from fake_runtime.words import Unit, spelled
from mlx_runtime.protocol import Sampling

TOKENS = 64
CHAT, COMPLETIONS = ROUTES = "/v1/chat/completions", "/v1/completions"
GREEDY = Sampling(temperature=0.0)
PENALTIES = Sampling(temperature=0.0, repetition_penalty=1.25, presence_penalty=0.5, frequency_penalty=0.25)
_SPELLED = spelled(DEMO_FOLDER)
# One token each of so many answers. Where every other answer is cut on purpose they keep the breakers shut, and earn
# the retry that a cut costs.
_MENDING = {"model": DEMO, "prompt": AMONG[:3], "max_tokens": 1, "n": 10, "temperature": 1}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# "Busy" is no end of an answer: the runtime has not even taken it.
_CUT = re.compile(r"an attempt ended early request=(\d+) attempt=(\d+) node=(\d+) outcome=Failed")


@dataclass(frozen=True)
class Shape:
    """A kind of request."""

    name: str
    sampling: Sampling = GREEDY
    n: int = 1
    spelled: bool = False
    stops: bool = False

    @property
    def number(self) -> int:
        return SHAPES.index(self)

    @property
    def units(self) -> list[Unit]:
        return _SPELLED if self.spelled else PLAIN

    @property
    def cuts(self) -> range:
        """After so many tokens. Behind the last one only the word is missing that it was the last."""
        return range(TOKENS if self.stops else TOKENS + 1)


SHAPES = [
    Shape("plain"),
    Shape("seeded", Sampling(temperature=0.75, seed=41)),
    Shape("n = 2", Sampling(temperature=0.75, seed=41), n=2),
    Shape("penalties", PENALTIES),
    Shape("stop strings", spelled=True, stops=True),
    Shape("split characters", Sampling(temperature=0.75, seed=7), spelled=True),
]
BY_NAME = {shape.name: shape for shape in SHAPES}


@dataclass(frozen=True)
class Asked:
    """One request, which holds an id that no other shape's does."""

    shape: Shape
    route: str
    dice: int = 1

    @cached_property
    def words(self) -> str | tuple[int, ...]:
        chance = random.Random(f"{self.shape.name}/{self.dice}")
        ids = chance.choices(AMONG, k=9)
        # The bytes of these letters are tokens that are part of no answer but a spelled one.
        letter = chr(0xE4 + self.shape.number)
        return text_of(ids) + letter if self.route == CHAT else (*ids, UNHEARD[self.shape.number])

    @cached_property
    def prompt(self) -> list[int]:
        return Question(self.words, TOKENS).prompt_ids()

    @property
    def mark(self) -> int:
        return next(token for token in reversed(self.prompt) if token in UNHEARD)

    def tokens(self, choice: int = 0) -> list[int]:
        """What a runtime draws."""
        sampling = self.shape.sampling
        return told(self.prompt, TOKENS, self.shape.units, sampling, (sampling.seed or 0) + choice)

    @cached_property
    def stops(self) -> list[str]:
        """One that comes at the very end, over twelve tokens, and one of which only the beginning comes."""
        tokens = self.tokens()
        return [text_of(tokens[-12:]), text_of(tokens[8:20]) + "?"] if self.shape.stops else []

    def text(self, choice: int = 0) -> str:
        """What a client must be told."""
        text = text_of(self.tokens(choice))
        return min((text[: text.index(stop)] for stop in self.stops if stop in text), key=len, default=text)

    @property
    def finish(self) -> str:
        return "stop" if self.shape.stops else "length"

    @property
    def usage(self) -> tuple[int, int]:
        """Prompt and answer."""
        return len(self.prompt), TOKENS * self.shape.n

    def body(self) -> dict[str, Any]:
        sampling, chat = self.shape.sampling, self.route == CHAT
        body = {**Question(self.words, TOKENS + 16 * self.shape.stops).body(), "n": self.shape.n, "stop": self.stops}
        body |= {"temperature": sampling.temperature, "seed": sampling.seed}
        body |= {"logprobs": True, "top_logprobs": 2} if chat else {"logprobs": 2}
        for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
            if getattr(sampling, name) != getattr(GREEDY, name):
                body[name] = getattr(sampling, name)
        return body


@dataclass(frozen=True)
class Cut:
    """What the coordinator's log says of an attempt that failed."""

    request: int
    attempt: int
    node: int


class CutRoom(Room):
    """A coordinator and agents on whose fake runtimes a trap can be set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.trap = folder / "trap"
        self.client = httpx.Client(base_url=self.url, timeout=TIMEOUT_S)

    def fill(self, agents: int, knobs: str = "") -> list[Process]:
        """Starts everything, and waits until all are ready."""
        self.coordinator()
        fake = ",".join(filter(None, [f"file={self.trap}", knobs]))
        started = [self.agent(f"node-{number}", "demo", fake=fake) for number in range(agents)]
        self.ready(nodes=agents)
        return started

    def set(self, knobs: str) -> None:
        """The knobs of all runtimes from now on."""
        made = self.trap.with_suffix(".new")
        made.write_text(knobs)
        made.rename(self.trap)

    def sprung(self) -> bool:
        """Whether the trap is gone; it is afterwards."""
        held = self.trap.exists()
        self.trap.unlink(missing_ok=True)
        return not held

    def ask(self, asked: Asked, watch: Callable[[Transcript], None] = lambda _: None, **more: Any) -> Transcript:
        return transcribe(self.client, asked.route, {**asked.body(), **more}, watch)

    def mend(self) -> None:
        """Lets all runtimes answer something."""
        self.client.post(COMPLETIONS, json=_MENDING).raise_for_status()

    def cuts(self, seen: Transcript) -> list[Cut]:
        """Where and how often an answer was cut, in order."""
        return self.cuts_of(seen.requests)

    def cuts_of(self, requests: Container[int]) -> list[Cut]:
        """The same, of requests by their numbers."""
        said = next(one for one in self.processes if one.name == "coordinator").said()
        told = [Cut(*map(int, found)) for found in _CUT.findall(_COLOURS.sub("", said))]
        return [cut for cut in told if cut.request in requests]

    def close(self) -> None:
        self.client.close()
        super().close()


def assert_right(asked: Asked, seen: Transcript) -> None:
    """What was computed beforehand, and nothing that breaks the contract."""
    assert not seen.faults and not seen.error and not seen.broken and seen.done, seen
    expected = {index: asked.text(index) for index in range(asked.shape.n)}
    assert {index: told.text for index, told in seen.choices.items()} == expected
    assert {told.finish for told in seen.choices.values()} == {asked.finish}
    assert seen.usage and (seen.usage["prompt_tokens"], seen.usage["completion_tokens"]) == asked.usage, seen.usage


def assert_broken(seen: Transcript, code: str) -> None:
    """An error event, then a reset, and nothing that looks like an end."""
    assert not seen.faults and not seen.looks_finished and seen.usage is None, seen
    assert seen.error is not None and seen.error["code"] == code, seen.error
    assert seen.broken, "the connection was closed as if nothing had happened"
