"""Turns one written question into the many ways people type it.

Owns synonyms, politeness, case, punctuation, dropped words and typing errors. Refuses to
touch answers. Every choice comes from the random generator handed in.
"""

from __future__ import annotations

import random
import re

# Each line is a ring: a word may become any other of its ring.
SYNONYM_RINGS = (
    ("mac", "machine", "computer", "mac mini", "mac studio"),
    ("macs", "machines", "computers", "mac minis"),
    ("start", "launch", "run", "fire up"),
    ("add", "connect", "attach", "hook up"),
    ("stop", "shut down", "quit"),
    ("use", "work with"),
    ("dies", "crashes", "fails", "goes down", "breaks", "stops working"),
    ("request", "query", "call"),
    ("requests", "queries", "calls"),
    ("need", "require"),
    ("happens", "goes on"),
    ("second", "another", "2nd"),
    ("does", "will"),
    ("purpose", "point", "role"),
    ("show", "display", "see"),
    ("choose", "pick", "select"),
    ("fast", "quick", "speedy"),
    ("big", "large", "huge"),
    ("see", "view", "look at"),
    ("many", "a lot of"),
    ("wait", "stand by"),
    ("make", "create"),
    ("explain", "describe"),
    ("tell me about", "talk about", "say something about"),
    ("licence", "license"),
    ("mlx-serving", "mlx serving", "this software", "this project", "mlxserving"),
)
OPENERS = (
    "hi, ", "hello, ", "hey, ", "please ", "quick question: ", "so, ", "ok, ", "and ",
    "can you tell me ", "could you tell me ", "I wonder, ", "one more thing: ", "tell me, ",
    "do you know ", "sorry, ", "well, ", "I'd like to know: ", "Question: ", "also, ",
    "in mlx-serving, ", "with mlx-serving, ", "hmm, ", "now ", "help: ", "may I ask, ",
)  # fmt: skip
CLOSERS = (
    " please", ", please?", " thanks", "? Thanks!", " in mlx-serving?", " here?", " exactly?",
    " in short?", "??", " then?", " for me?", " in one sentence?", " briefly", " again?", "!",
    " with mlx-serving?", " in this system?", " I am new here.", " in your case?",
)  # fmt: skip
NEIGHBOURS = {
    "a": "qs", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o",
    "q": "w", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "x",
}  # fmt: skip
DROPPABLE = frozenset((
    "a", "an", "the", "is", "are", "do", "does", "can", "i", "it", "to", "of", "me", "my", "you",
    "your", "in", "on", "with", "for", "please", "what", "how", "which", "and", "there", "be",
    "will", "would", "about",
))  # fmt: skip
_RING_OF = {word: ring for ring in SYNONYM_RINGS for word in ring}
_RING_PATTERN = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _RING_OF), key=len, reverse=True)) + r")\b", re.I)


def vary(question: str, rng: random.Random) -> str:
    """One random way to type the question; about one in four comes back unchanged."""
    if rng.random() < 0.25:
        return question
    text = question
    if rng.random() < 0.35:
        text = _swap_synonyms(text, rng)
    if rng.random() < 0.35:
        text = _drop_words(text, rng)
    if rng.random() < 0.20:
        text = rng.choice(OPENERS) + text[:1].lower() + text[1:]
    if rng.random() < 0.15:
        text = text.rstrip("?.! ") + rng.choice(CLOSERS)
    if rng.random() < 0.30:
        text = text.rstrip("?.! ")
    if rng.random() < 0.12:
        text = _mistype(text, rng)
    return _recase(text, rng)


def _swap_synonyms(text: str, rng: random.Random) -> str:
    def swap(match: re.Match[str]) -> str:
        word = match.group(0)
        return rng.choice(_RING_OF[word.lower()]) if rng.random() < 0.5 else word

    return _RING_PATTERN.sub(swap, text)


def _drop_words(text: str, rng: random.Random) -> str:
    words = text.split()
    # Now and then a word of weight goes too, so that no single word is indispensable.
    kept = [w for w in words if rng.random() < (0.5 if w.lower() in DROPPABLE else 0.9)]
    return " ".join(kept or words)


def _mistype(text: str, rng: random.Random) -> str:
    letters = list(text)
    for _ in range(1 + len(text) // 40):
        at = rng.randrange(len(letters))
        kind = rng.randrange(4)
        if kind == 0 and len(letters) > 8:
            del letters[at]
        elif kind == 1:
            letters.insert(at, letters[at])
        elif kind == 2 and at + 1 < len(letters):
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        else:
            letters[at] = rng.choice(NEIGHBOURS.get(letters[at].lower(), letters[at]))
    return "".join(letters)


def _recase(text: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.30:
        return text.lower()
    if draw < 0.33:
        return text.upper()
    if draw < 0.40:
        return text.title()
    if draw < 0.60:
        return text[:1].upper() + text[1:]
    return text
