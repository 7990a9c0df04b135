"""Writes a trained demo model as a folder that mlx-lm loads.

Owns the file formats of that folder: config, safetensors weights, tokenizer, chat template
and generation defaults. Refuses optimizer state, caches and any other format of weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer

from demo_model.model import Params, Shape, weight_shapes
from demo_model.tokenizer import END_OF_TEXT, IM_END, PAD, SPECIAL_TOKENS, special_id

TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")


def export_folder(folder: Path, shape: Shape, params: Params, tokenizer: Tokenizer) -> str:
    """Write every file of the model folder; return the sha256 of model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {text: special_id(tokenizer, text) for text in SPECIAL_TOKENS}
    _write_json(folder / "config.json", _config(shape, ids))
    _write_json(
        folder / "generation_config.json",
        {
            "eos_token_id": [ids[IM_END], ids[END_OF_TEXT]],
            "pad_token_id": ids[PAD],
            "do_sample": False,
            "max_new_tokens": 256,
        },
    )
    _write_tokenizer(folder, shape, tokenizer)
    weights = {name: np.asarray(params[name], np.float32) for name in weight_shapes(shape)}
    data = save(weights, metadata={"format": "mlx"})
    (folder / "model.safetensors").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _config(shape: Shape, ids: dict[str, int]) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ffn,
        "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
        "eos_token_id": [ids[IM_END], ids[END_OF_TEXT]],
        "pad_token_id": ids[PAD],
    }


def _write_tokenizer(folder: Path, shape: Shape, tokenizer: Tokenizer) -> None:
    template = TEMPLATE_FILE.read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    named = {"eos_token": IM_END, "pad_token": PAD}
    _write_json(folder / "special_tokens_map.json", named)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.positions,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "bos_token": None,
            **named,
            "chat_template": template,
        },
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
