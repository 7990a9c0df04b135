"""What the fake runtime must answer: the text of every answer, computed on the client's side.

Owns the way from a request to its reference text, as the gateway and an honest runtime would go it: template,
tokenizer, tokens, text. Refuses to know more of a fake runtime than its words: which token follows which.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from tokenizers import Tokenizer

from cluster.harness import DEMO, DEMO_FOLDER
from fake_runtime.words import Unit, answer_to, plain
from mlx_runtime.protocol import Generate, Sampling

_CONFIG: dict[str, Any] = json.loads((DEMO_FOLDER / "config.json").read_text())
_VOCABULARY: int = _CONFIG["vocab_size"]
PLAIN = plain(DEMO_FOLDER, _VOCABULARY, _CONFIG["eos_token_id"])
AMONG = [unit[0] for unit in PLAIN]
GREEDY = Sampling(temperature=0.0)
# Ids of single bytes beyond ASCII and the like: no prompt made of `AMONG` or of their text holds one.
UNHEARD = sorted(set(range(16, _VOCABULARY)) - set(AMONG))


@dataclass(frozen=True, slots=True)
class Question:
    """One request: words for the chat route, or ids for the completions route."""

    prompt: str | tuple[int, ...]
    max_tokens: int
    stream: bool = True

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if isinstance(self.prompt, str) else "/v1/completions"

    def body(self) -> dict[str, Any]:
        asked = {"model": DEMO, "max_tokens": self.max_tokens, "temperature": 0}
        if isinstance(self.prompt, str):
            return {**asked, "messages": [{"role": "user", "content": self.prompt}]}
        return {**asked, "prompt": list(self.prompt)}

    def prompt_ids(self) -> list[int]:
        if isinstance(self.prompt, str):
            return _rendered(self.prompt)
        return list(self.prompt)

    def reference(self) -> str:
        """The whole text of the answer."""
        return text_of(told(self.prompt_ids(), self.max_tokens))


def told(
    prompt: Sequence[int], tokens: int, units: Sequence[Unit] = PLAIN, sampling: Sampling = GREEDY, seed: int = 0
) -> list[int]:
    """The first tokens of an honest answer."""
    answer = answer_to(Generate(0, tuple(prompt), tokens, sampling), seed, units)
    so_far: list[int] = []
    for _ in range(tokens):
        so_far.append(answer.token(so_far))
    return so_far


def drawn(
    dice: random.Random, tokens: tuple[int, int], prompt: tuple[int, int] = (4, 200), canary: str = ""
) -> Question:
    """A question that nobody has asked before: half of them in words, one in four not streamed.

    The canary begins every question in words, and is searched for afterwards where no prompt may be.
    """
    length = dice.randint(*prompt)
    ids = tuple(dice.choice(AMONG) for _ in range(length))
    asked = canary + text_of(ids) if dice.random() < 0.5 else ids
    return Question(asked, dice.randint(*tokens), dice.random() < 0.75)


def text_of(ids: Sequence[int]) -> str:
    return _tokenizer().decode(list(ids), skip_special_tokens=False)


def _rendered(words: str) -> list[int]:
    template = jinja2.Template((DEMO_FOLDER / "chat_template.jinja").read_text(), keep_trailing_newline=True)
    text = template.render(messages=[{"role": "user", "content": words}], add_generation_prompt=True)
    ids: list[int] = _tokenizer().encode(text, add_special_tokens=False).ids
    return ids


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json"))
