"""The demo model's tokenizer: a byte-level BPE trained on our own text.

Owns the special tokens, the vocabulary size and the training of the merges. Refuses to
learn merges over non-ASCII characters: they stay single bytes, so that one "é" or one
emoji always spans several tokens and every reader of our streams meets split UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 1024
PAD = "<|pad|>"
END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
SPECIAL_TOKENS = (PAD, END_OF_TEXT, IM_START, IM_END)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train the merges on the ASCII part of `texts`; exactly VOCAB_SIZE tokens result."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    ascii_only = (text.encode("ascii", "ignore").decode("ascii") for text in texts)
    tokenizer.train_from_iterator(ascii_only, trainer)
    size = tokenizer.get_vocab_size()
    if size != VOCAB_SIZE:
        raise ValueError(f"the text yields {size} tokens, {VOCAB_SIZE} are needed: add text")
    return tokenizer


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token; a tokenizer without it is not one of ours."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer lacks {token}")
    return found
