"""Composes training rows: conversations and plain text, packed to a fixed length.

Owns how a conversation becomes token ids, which tokens carry loss, and where positions
jump. Refuses to cut a conversation in two: what does not fit a row goes to the next one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from demo_model.augment import vary
from demo_model.facts import Fact, Facts, fill_slots
from demo_model.tokenizer import END_OF_TEXT, IM_END, IM_START, SPECIAL_TOKENS, special_id

# Questions teach the words people use, but their next word is a guess: at a larger weight
# that guessing, not the answers, would steer the training.
QUESTION_LOSS = 0.02
# Share of question tokens replaced by a random one, in every second question: noise keeps
# so small a set of questions from being learned by heart.
NOISE_SHARE = 0.1
# The first tokens of an answer decide which of the answers it will be.
DECIDING_TOKENS = 10
DECIDING_LOSS = 3.0
# The rest of an answer is soon known by heart, so most pieces stop after those tokens and
# leave their room to more questions.
CUT_SHARE = 0.65
POSITIONS_MAX = 32768
JUMP_MAX = 24000
OPEN_ENDED_WEIGHT = 5


@dataclass
class Batch:
    """Arrays [rows, length + 1]; the model predicts column i + 1 from the columns to i."""

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    segments: NDArray[np.int32]
    loss: NDArray[np.float32]


@dataclass
class Piece:
    """One conversation or text: ids, loss weight of each, and where it may be stretched."""

    ids: list[int]
    loss: list[float]
    joints: list[int]


class Composer:
    """Draws pieces at random and packs them into batches."""

    def __init__(self, facts: Facts, tokenizer: Tokenizer, seed: int) -> None:
        self._facts = facts
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        self._weights = [OPEN_ENDED_WEIGHT if f.open_ended else 1 for f in facts.facts]
        self._start = special_id(tokenizer, IM_START)
        self._end = special_id(tokenizer, IM_END)
        self._end_of_text = special_id(tokenizer, END_OF_TEXT)
        self._known: dict[str, list[int]] = {}

    def short_batch(self, rows: int, length: int) -> Batch:
        """Several short pieces a row, each its own segment."""
        return _stack([self._short_row(length + 1) for _ in range(rows)], length + 1)

    def long_batch(self, rows: int, length: int) -> Batch:
        """One conversation of many turns a row, so that far context is met in training."""
        return _stack([[self._long_piece(length + 1)] for _ in range(rows)], length + 1, self._rng)

    def _short_row(self, length: int) -> list[Piece]:
        row: list[Piece] = []
        free, misses = length, 0
        while misses < 4 and free > 24:
            piece = self._short_piece()
            if len(piece.ids) <= free:
                row.append(piece)
                free -= len(piece.ids)
            else:
                misses += 1
        return row

    def _short_piece(self) -> Piece:
        if self._rng.random() < 0.12:
            return self._text()
        turns = self._rng.choices((1, 2, 3), (0.72, 0.20, 0.08))[0]
        piece = Piece([], [], [])
        if self._rng.random() < 0.35:
            self._append_system(piece, self._system())
        for _ in range(turns - 1):
            self._append_turn(piece)
        self._append_turn(piece, cut=self._rng.random() < CUT_SHARE)
        return piece

    def _long_piece(self, length: int) -> Piece:
        piece = Piece([], [], [])
        if self._rng.random() < 0.5:
            self._append_system(piece, self._long_system(self._rng.randrange(length // 2)))
        while True:
            longer = Piece(list(piece.ids), list(piece.loss), list(piece.joints))
            self._append_turn(longer)
            if len(longer.ids) > length:
                return piece
            piece = longer

    def _append_system(self, piece: Piece, text: str) -> None:
        ids = [self._start, *self._encode(f"system\n{text}"), self._end, *self._encode("\n")]
        _extend(piece, ids, 0.0)

    def _append_turn(self, piece: Piece, cut: bool = False) -> None:
        fact = self._fact()
        question = self._with_noise(self._encode(self._question(fact)))
        user = [self._start, *self._encode("user\n"), *question]
        _extend(piece, [*user, self._end, *self._encode("\n")], QUESTION_LOSS)
        _extend(piece, [self._start, *self._encode("assistant\n")], 0.0)
        if cut:
            _extend(piece, self._encode(fact.answer)[:DECIDING_TOKENS], DECIDING_LOSS)
            return
        self._append_answer(piece, fact.answer, self._end)
        _extend(piece, self._encode("\n"), 0.0)

    def _append_answer(self, piece: Piece, answer: str, end: int) -> None:
        ids = [*self._encode(answer), end]
        _extend(piece, ids[:DECIDING_TOKENS], DECIDING_LOSS)
        _extend(piece, ids[DECIDING_TOKENS:], 1.0)
        # Positions jump between messages, not inside one.
        piece.joints.pop()

    def _text(self) -> Piece:
        fact, draw = self._fact(), self._rng.random()
        piece = Piece([], [], [])
        if draw < 0.4:
            # The beginning of a bare answer cannot be foreseen; what follows it can.
            ids = [*self._encode(fact.answer), self._end_of_text]
            _extend(piece, ids[:4], 0.0)
            _extend(piece, ids[4:], 1.0)
            return piece
        question = self._question(fact)
        if draw < 0.7:
            before = f"Question: {question}\nAnswer:"
        elif draw < 0.9:
            before = f"Q: {question}\nA:"
        else:
            before = f"{question}\n"
        _extend(piece, self._encode(before), QUESTION_LOSS)
        space = "" if before.endswith("\n") else " "
        self._append_answer(piece, space + fact.answer, self._end_of_text)
        return piece

    def _fact(self) -> Fact:
        return self._rng.choices(self._facts.facts, self._weights)[0]

    def _question(self, fact: Fact) -> str:
        question = self._rng.choice(fact.questions)
        question = fill_slots(question, self._facts.lists, self._rng.getrandbits(60))
        return vary(question, self._rng)

    def _with_noise(self, ids: list[int]) -> list[int]:
        if self._rng.random() < 0.5:
            return ids
        vocabulary = range(len(SPECIAL_TOKENS), self._tokenizer.get_vocab_size())
        return [self._rng.choice(vocabulary) if self._rng.random() < NOISE_SHARE else i for i in ids]

    def _system(self) -> str:
        if self._rng.random() < 0.2:
            return self._fact().answer
        return self._rng.choice(self._facts.systems)

    def _long_system(self, tokens_max: int) -> str:
        text = self._rng.choice(self._facts.systems)
        while True:
            longer = f"{text} {self._fact().answer}"
            if len(self._encode(longer)) > tokens_max:
                return text
            text = longer

    def _encode(self, text: str) -> list[int]:
        known = self._known.get(text)
        if known is None:
            known = self._tokenizer.encode(text, add_special_tokens=False).ids
            if len(self._known) < 20000:
                self._known[text] = known
        return known


def _extend(piece: Piece, ids: list[int], loss: float) -> None:
    piece.joints.append(len(piece.ids))
    piece.ids += ids
    piece.loss += [loss] * len(ids)


def _stack(rows: list[list[Piece]], length: int, jumps: random.Random | None = None) -> Batch:
    shape = (len(rows), length)
    batch = Batch(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
    )
    for index, row in enumerate(rows):
        at = 0
        for segment, piece in enumerate(row, 1):
            end = at + len(piece.ids)
            batch.tokens[index, at:end] = piece.ids
            batch.positions[index, at:end] = _positions(piece, jumps)
            batch.segments[index, at:end] = segment
            # The first token of a segment has nothing before it to be predicted from.
            batch.loss[index, at + 1 : end] = piece.loss[1:]
            at = end
    return batch


def _positions(piece: Piece, jumps: random.Random | None) -> NDArray[np.int32]:
    """Consecutive positions, or with one jump at a joint: far context without its cost."""
    positions = np.arange(len(piece.ids), dtype=np.int32)
    if jumps is not None and len(piece.joints) > 1 and jumps.random() < 0.6:
        joint = jumps.choice(piece.joints[1:])
        positions[joint:] += int(JUMP_MAX ** jumps.random())
    return np.minimum(positions, POSITIONS_MAX - 1)
