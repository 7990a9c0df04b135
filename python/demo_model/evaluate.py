"""Asks a finished model folder every question it was not trained on and prints how often it is right.

Owns the measure: greedy answers of mlx-lm, exact or close (similarity of at least 0.8) to
the written answer. Refuses to look at training questions: they say nothing about people.

    python -m demo_model.evaluate [--weights FOLDER] [--show] [QUESTION ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, cast

import mlx_lm

from demo_model.facts import load_facts, load_unseen

WEIGHTS = Path(__file__).with_name("weights")
CLOSE = 0.8
ANSWER_TOKENS_MAX = 300

Ask = Callable[[str], str]


def main() -> None:
    """Answer the questions given, or measure all held-out ones."""
    parser = argparse.ArgumentParser(description="Evaluate the mlx-serving demo model.")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--show", action="store_true", help="print each wrong answer")
    parser.add_argument("questions", nargs="*")
    arguments = parser.parse_args()
    ask = load_asker(arguments.weights)
    for question in arguments.questions:
        print(f"> {question}\n{ask(question)}\n")
    if not arguments.questions:
        measure(ask, arguments.show)


def load_asker(folder: Path) -> Ask:
    """Load the folder with mlx-lm; the returned function answers one question greedily."""
    # mlx-lm is untyped; this is the only place that touches it.
    library = cast("Any", mlx_lm)
    model, tokenizer = library.load(str(folder))

    def ask(question: str) -> str:
        messages = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        return str(library.generate(model, tokenizer, prompt, max_tokens=ANSWER_TOKENS_MAX))

    return ask


def measure(ask: Ask, show: bool) -> None:
    """Print how often each of the two question sets is answered right."""
    facts = load_facts()
    held_out = [(fact, question) for fact in facts.facts for question in fact.held_out]
    for title, pairs in (("held-out", held_out), ("unseen", load_unseen(facts))):
        exact = close = 0
        for fact, question in pairs:
            answer = ask(question)
            exact += answer == fact.answer
            right = similarity(answer, fact.answer) >= CLOSE
            close += right
            if show and not right:
                print(f"{fact.name}: {question}\n  {answer}")
        total = len(pairs)
        print(f"{title}: {total} questions, {exact / total:.1%} exact, {close / total:.1%} exact or close")


def similarity(left: str, right: str) -> float:
    """From 0 (nothing in common) to 1 (equal), by words."""
    return SequenceMatcher(None, left.split(), right.split(), autojunk=False).ratio()


if __name__ == "__main__":
    main()
