"""Reads the facts: what the demo model can answer, and how people ask for it.

Owns the text format of data/*.md and the question templates behind its short forms.
Refuses an unknown line, a fact without question or answer, and a question that two facts
claim, since a model cannot learn two answers to one question.

    ## id                 starts a fact
    what: a coordinator   asks "what is a coordinator" and its like
    how: add a Mac        asks "how do I add a Mac" and its like
    q: Any question?      asked as it stands; {list} is filled from a list
    test: Any question?   held out: never trained on, only evaluated; near the trained ones
    a: The answer.        one line, \\n starts a new line
    @list: one, two       a list of words for {list}
    system: Be brief.     a system message that conversations may begin with
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

DATA_FOLDER = Path(__file__).with_name("data")
UNSEEN_FILE = DATA_FOLDER / "unseen.tsv"

WHAT_TEMPLATES = (
    "What is {}?",
    "What's {}?",
    "what is {}",
    "Explain {}.",
    "Can you explain {}?",
    "Tell me about {}.",
    "What does {} mean?",
    "Describe {}.",
    "Define {}.",
    "{}?",
    "What do you mean by {}?",
    "I don't understand {}.",
    "Please explain {} to me.",
    "What exactly is {}?",
    "Give me a short explanation of {}.",
    "I have a question about {}.",
)
HOW_TEMPLATES = (
    "How do I {}?",
    "How can I {}?",
    "How to {}?",
    "how to {}",
    "I want to {}.",
    "Help me {}.",
    "What is the way to {}?",
    "Can I {}?",
    "Show me how to {}.",
    "What must I do to {}?",
    "Which command do I need to {}?",
    "How would I {}?",
    "I need to {}.",
    "What are the steps to {}?",
    "Is it possible to {}?",
)


@dataclass
class Fact:
    """One answer with all questions that lead to it."""

    name: str
    answer: str = ""
    questions: list[str] = field(default_factory=list[str])
    held_out: list[str] = field(default_factory=list[str])
    # Its questions hold {list} slots: many surface forms, so it is sampled more often.
    open_ended: bool = False


@dataclass
class Facts:
    """All facts, with the word lists that fill the slots of their questions."""

    facts: list[Fact]
    lists: dict[str, list[str]]
    systems: list[str]


def load_facts(folder: Path = DATA_FOLDER) -> Facts:
    """Read every data file in name order and check the whole."""
    loaded = Facts([], {}, [])
    for path in sorted(folder.glob("*.md")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                _read_line(loaded, line.strip())
            except ValueError as error:
                raise ValueError(f"{path.name}:{number}: {error}") from error
    _check(loaded)
    return loaded


def load_unseen(loaded: Facts, path: Path = UNSEEN_FILE) -> list[tuple[Fact, str]]:
    """Questions written after all others, as a newcomer types them; never trained on."""
    by_name = {fact.name: fact for fact in loaded.facts}
    trained = {normalised(question) for fact in loaded.facts for question in fact.questions}
    unseen: list[tuple[Fact, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, question = line.partition("\t")
        if normalised(question) in trained:
            raise ValueError(f"unseen '{question}' is also trained")
        unseen.append((by_name[name], question))
    return unseen


def fill_slots(text: str, lists: dict[str, list[str]], pick: int) -> str:
    """Replace each {list} by one of its words; `pick` is a random number that chooses."""

    def word(match: re.Match[str]) -> str:
        nonlocal pick
        words = lists[match.group(1)]
        pick, index = divmod(pick, len(words))
        return words[index]

    return re.sub(r"\{(\w+)\}", word, text)


def normalised(question: str) -> str:
    """The question without case and punctuation: what makes two questions the same."""
    return " ".join(re.findall(r"[a-z0-9{}'_/.-]+", question.lower())).strip(".")


def _read_line(loaded: Facts, line: str) -> None:
    if line.startswith("## "):
        loaded.facts.append(Fact(line[3:].strip()))
        return
    if not line or line.startswith("#"):
        return
    key, separator, value = line.partition(":")
    value = value.strip()
    if not separator or not value:
        raise ValueError("a line is 'key: value'")
    if key.startswith("@"):
        loaded.lists[key[1:]] = [word.strip() for word in value.split(",")]
        return
    if key == "system":
        loaded.systems.append(value)
        return
    if not loaded.facts:
        raise ValueError("a fact starts with '## id'")
    _add(loaded.facts[-1], key, value)


def _add(fact: Fact, key: str, value: str) -> None:
    fact.open_ended = fact.open_ended or ("{" in value and key == "q")
    if key == "what":
        fact.questions += [template.format(value) for template in WHAT_TEMPLATES]
    elif key == "how":
        fact.questions += [template.format(value) for template in HOW_TEMPLATES]
    elif key == "q":
        fact.questions.append(value)
    elif key == "test":
        fact.held_out.append(value)
    elif key == "a" and not fact.answer:
        fact.answer = value.replace("\\n", "\n")
    else:
        raise ValueError(f"unknown or repeated key '{key}'")


def _check(loaded: Facts) -> None:
    owner: dict[str, str] = {}
    for fact in loaded.facts:
        if not fact.answer or not fact.questions:
            raise ValueError(f"fact '{fact.name}' needs an answer and a question")
        for question in fact.questions:
            holder = owner.setdefault(normalised(question), fact.name)
            if holder != fact.name:
                raise ValueError(f"'{question}' belongs to '{holder}' and '{fact.name}'")
    for fact in loaded.facts:
        for question in fact.held_out:
            if normalised(question) in owner:
                raise ValueError(f"held-out '{question}' is also trained")
