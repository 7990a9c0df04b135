"""Which tokens a fake answer is made of, and which one comes at a position. Pure but for reading tokenizer.json.

It refuses special tokens and anything that is not printable ASCII on its own, so that every fake answer is plain text.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

# How byte-level and SentencePiece vocabularies write a space in front of a word.
_SPACES = ("\u0120", "\u2581")


def choices(folder: Path, vocab_size: int, eos_ids: Sequence[int]) -> list[int]:
    """The ids answers are made of, ascending."""
    try:
        body = cast(dict[str, Any], json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        body = {}
    added = {int(token["id"]) for token in cast(list[dict[str, Any]], body.get("added_tokens") or [])}
    barred = added | set(eos_ids)
    found = sorted(
        number for word, number in _vocabulary(body) if number < vocab_size and number not in barred and _plain(word)
    )
    return found or [number for number in range(vocab_size) if number not in barred] or [0]


def fingerprint(ids: Sequence[int]) -> bytes:
    """What of a prompt the answer depends on."""
    return hashlib.blake2b(struct.pack(f"<{len(ids)}Q", *ids), digest_size=16).digest()


def token_at(prompt: bytes, position: int, among: Sequence[int]) -> int:
    """The token at a position, from 0, of the answer to a prompt."""
    digest = hashlib.blake2b(prompt + struct.pack("<Q", position), digest_size=8).digest()
    return among[int.from_bytes(digest, "little") % len(among)]


def _vocabulary(body: dict[str, Any]) -> list[tuple[str, int]]:
    vocabulary = cast(dict[str, Any], body.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        return [(word, int(number)) for word, number in cast(dict[str, int], vocabulary).items()]
    if isinstance(vocabulary, list):
        return [(str(entry[0]), number) for number, entry in enumerate(cast(list[list[Any]], vocabulary))]
    return []


def _plain(word: str) -> bool:
    text = word[1:] if word.startswith(_SPACES) else word
    # Byte fallbacks are written <0x41>: printable, but not what they stand for.
    return bool(text) and text.isascii() and text.isprintable() and not (text.startswith("<") and text.endswith(">"))
