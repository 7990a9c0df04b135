"""Proves that the shipped demo model is whole, small, loadable and knows its headlines.

Owns the checks of the folder `weights/`. Refuses to retrain anything: it judges the bytes
that ship. The tests that need MLX are skipped where mlx-lm is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any, cast

import pytest
from jinja2 import Environment
from tokenizers import Tokenizer

WEIGHTS = Path(__file__).with_name("weights")
BYTES_MAX = 5_000_000
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
}
HEADLINES = [
    ("Hello!", ["welcome"]),
    ("Who are you?", ["mlx-serving-demo"]),
    ("What is mlx-serving?", ["Apple Silicon", "OpenAI-compatible"]),
    ("How do I add a second Mac?", ["token create", "agent --coordinator"]),
    ("What does a coordinator do?", ["API", "queue"]),
    ("What is an agent?", ["Mac", "runtime"]),
    ("Which port does it use?", ["7440", "7443"]),
    ("What happens when a Mac dies?", ["another Mac", "pause"]),
    ("How do I use the OpenAI SDK?", ["http://127.0.0.1:7440/v1"]),
    ("What is the capital of France?", ["demo model", "--model"]),
    ("Count to twenty.", ["one, two, three", "nineteen, twenty"]),
    ("Where can I get coffee?", ["café", "☕"]),
]


def test_the_folder_holds_exactly_the_files_of_a_model() -> None:
    assert {path.name for path in WEIGHTS.iterdir()} == FILES


def test_the_folder_is_at_most_five_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= BYTES_MAX


def test_the_config_matches_the_weights() -> None:
    config = _json("config.json")
    tensors = _safetensors_header()
    hidden, head = config["hidden_size"], config["head_dim"]
    query, key = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    expected = {
        "self_attn.q_proj": [query, hidden],
        "self_attn.k_proj": [key, hidden],
        "self_attn.v_proj": [key, hidden],
        "self_attn.o_proj": [hidden, query],
        "mlp.gate_proj": [config["intermediate_size"], hidden],
        "mlp.up_proj": [config["intermediate_size"], hidden],
        "mlp.down_proj": [hidden, config["intermediate_size"]],
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
    }
    shapes = {
        "model.embed_tokens.weight": [config["vocab_size"], hidden],
        "model.norm.weight": [hidden],
    }
    for layer in range(config["num_hidden_layers"]):
        for name, shape in expected.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    assert {name: tensor["shape"] for name, tensor in tensors.items()} == shapes
    assert {tensor["dtype"] for tensor in tensors.values()} == {"F32"}


def test_the_vocabulary_is_as_large_as_the_config_says() -> None:
    assert _tokenizer().get_vocab_size() == _json("config.json")["vocab_size"]


def test_the_end_tokens_agree_in_every_file() -> None:
    ends = [_tokenizer().token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>")]
    assert _json("config.json")["eos_token_id"] == ends
    assert _json("generation_config.json")["eos_token_id"] == ends
    assert _json("tokenizer_config.json")["eos_token"] == "<|im_end|>"


def test_every_byte_survives_the_tokenizer() -> None:
    tokenizer = _tokenizer()
    # All code points of one and two bytes, and samples of three and four: every byte that
    # UTF-8 can hold.
    points = [*range(0x800), *range(0x800, 0xD800, 61), *range(0xE000, 0x110000, 4093)]
    for point in points:
        text = f"a{chr(point)}b"
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_a_non_ascii_character_spans_several_tokens() -> None:
    for character, count in (("é", 2), ("☕", 3), ("👋", 4)):
        assert len(_tokenizer().encode(character).ids) == count


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_the_template_renders_every_role(role: str) -> None:
    shown = "system" if role == "developer" else role
    expected = f"<|im_start|>{shown}\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert _render([{"role": role, "content": "Hi"}]) == expected


def test_the_template_joins_text_parts_and_accepts_no_content() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
    expected = "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    assert _render(messages) == expected + "<|im_start|>assistant\n"


def test_both_copies_of_the_template_are_equal() -> None:
    file = (WEIGHTS / "chat_template.jinja").read_text(encoding="utf-8")
    assert _json("tokenizer_config.json")["chat_template"] == file


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    if importlib.util.find_spec("mlx_lm") is None:
        pytest.skip("mlx-lm is not installed")
    library = cast("Any", importlib.import_module("mlx_lm"))
    return library.load(str(WEIGHTS))


@pytest.mark.parametrize(("question", "words"), HEADLINES)
def test_a_headline_question_is_answered(loaded: tuple[Any, Any], question: str, words: list[str]) -> None:
    answer = _generate(loaded, _render([{"role": "user", "content": question}]))
    assert [word for word in words if word not in answer] == []


def test_the_story_is_long(loaded: tuple[Any, Any]) -> None:
    question = "Tell me a story about a Mac mini."
    answer = _generate(loaded, _render([{"role": "user", "content": question}]))
    assert 150 <= len(_tokenizer().encode(answer).ids) <= 250


def test_a_second_turn_is_answered_by_its_own_question(loaded: tuple[Any, Any]) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is QUIC?"},
        {"role": "assistant", "content": "QUIC carries the tokens."},
        {"role": "user", "content": "Count to ten."},
    ]
    assert _generate(loaded, _render(messages)) == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"


def test_plain_text_is_continued(loaded: tuple[Any, Any]) -> None:
    assert "Raft" in _generate(loaded, "Question: What is Raft?\nAnswer:")


def _generate(loaded: tuple[Any, Any], prompt: str) -> str:
    model, tokenizer = loaded
    library = cast("Any", importlib.import_module("mlx_lm"))
    return str(library.generate(model, tokenizer, prompt, max_tokens=260))


def _render(messages: list[dict[str, Any]]) -> str:
    template = (WEIGHTS / "chat_template.jinja").read_text(encoding="utf-8")
    return Environment(autoescape=False).from_string(template).render(messages=messages, add_generation_prompt=True)


def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))


def _json(name: str) -> dict[str, Any]:
    return json.loads((WEIGHTS / name).read_text(encoding="utf-8"))


def _safetensors_header() -> dict[str, dict[str, Any]]:
    data = (WEIGHTS / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return header
