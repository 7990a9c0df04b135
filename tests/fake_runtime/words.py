"""Which tokens a fake answer is made of, and which one comes next. Pure but for reading tokenizer.json.

It refuses special tokens and anything that is not printable ASCII on its own, so that every fake answer is plain text;
unless it is told to spell, byte by byte, words that a reader has to put together.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.protocol import Generate, Sampling

# How byte-level and SentencePiece vocabularies write a space in front of a word.
_SPACES = ("\u0120", "\u2581")
# Four bytes each: characters of one to four bytes, and words that serve as stop strings.
SPELLED: Final = ("🙂", "🦀", "€x", "…!", "éü", "ßø", "ñ a", "STOP", "stop", "end.", " the", "\n\n##")

Unit = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One row's answer: the units it is made of, all of one length, and what of the row decides among them."""

    units: Sequence[Unit]
    key: bytes
    sampling: Sampling

    def token(self, told: Sequence[int]) -> int:
        """The token that follows these of the answer."""
        width = len(self.units[0])
        unit, place = divmod(len(told), width)
        before = told[: unit * width]
        return unit_at(self.key + _memory(self.sampling, before), unit, self.units)[place]


def answer_to(asked: Generate, seed: int, units: Sequence[Unit]) -> Answer:
    """The answer to a prompt. `seed` is heard above temperature 0, as by a real sampler."""
    s = asked.sampling
    prompt = fingerprint(asked.ids[: asked.prompt_tokens])
    return Answer(units, prompt + struct.pack("<Q", seed) if s.temperature > 0.0 else prompt, s)


def fingerprint(ids: Sequence[int]) -> bytes:
    """What of some ids an answer depends on."""
    return hashlib.blake2b(struct.pack(f"<{len(ids)}Q", *ids), digest_size=16).digest()


def unit_at(key: bytes, position: int, among: Sequence[Unit]) -> Unit:
    """The unit at a position, from 0, of an answer."""
    digest = hashlib.blake2b(key + struct.pack("<Q", position), digest_size=8).digest()
    return among[int.from_bytes(digest, "little") % len(among)]


def _memory(s: Sampling, told: Sequence[int]) -> bytes:
    """What penalties make an answer remember: which tokens it holds and how often, in no order."""
    penalties = (s.repetition_penalty, s.presence_penalty, s.frequency_penalty)
    return b"" if penalties == (1.0, 0.0, 0.0) else struct.pack("<3d", *penalties) + fingerprint(sorted(told))


def plain(folder: Path, vocab_size: int, eos_ids: Sequence[int]) -> list[Unit]:
    """A unit for each token that is plain text, by ascending id."""
    body = _tokenizer(folder)
    added = {int(token["id"]) for token in cast(list[dict[str, Any]], body.get("added_tokens") or [])}
    barred = added | set(eos_ids)
    found = sorted(
        number for word, number in _vocabulary(body) if number < vocab_size and number not in barred and _plain(word)
    )
    ids = found or [number for number in range(vocab_size) if number not in barred] or [0]
    return [(number,) for number in ids]


def spelled(folder: Path) -> list[Unit]:
    """A unit for each of the words above, one token for each byte."""
    vocabulary = dict(_vocabulary(_tokenizer(folder)))
    try:
        return [tuple(_id_of(byte, vocabulary) for byte in word.encode()) for word in SPELLED]
    except KeyError as missing:
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"the vocabulary has no token for {missing}") from missing


def _id_of(byte: int, vocabulary: dict[str, int]) -> int:
    fallback = vocabulary.get(f"<0x{byte:02X}>")
    return vocabulary[_letter(byte)] if fallback is None else fallback


def _letter(byte: int) -> str:
    """How a byte-level vocabulary writes a byte: as itself if that can be seen, else as a letter from U+0100."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return chr(byte) if byte in seen else chr(0x100 + sum(other not in seen for other in range(byte)))


def _tokenizer(folder: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


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
