"""Makes tiny model folders with random weights: `python -m tiny_models OUT --arch llama --name small`.

It owns the folders every test of the repository loads: config, safetensors, byte-level BPE tokenizer, ChatML-like chat
template; a second or two each. It refuses the network. Same arguments, same bytes. The weights are wider than a usual
initialisation, so that greedy answers differ from prompt to prompt and small rounding does not change them.
"""

import argparse
import importlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

SPECIAL: Final = ("<|pad|>", "<|bos|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS: Final = ("<think>", "</think>", "<tool_call>", "</tool_call>")
ARCHITECTURES: Final = ("llama", "qwen3", "gemma3_text")
TEMPLATE: Final = """\
{%- if tools %}{{ '<|im_start|>system\\nYou may call these tools:\\n' }}
{%- for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{%- endfor %}{{ '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string %}{{ message['content'] }}
{%- else %}{%- for part in message['content'] or [] %}
{%- if part['type'] == 'text' %}{{ part['text'] }}{%- endif %}{%- endfor %}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}
"""
_WORDS: Final = (
    "room mac chip memory model token batch cache prompt answer stream queue agent leader lease vote quorum ring "
    "the a of to and in is it on at as by for with from that this one two three many few all none some each next last "
    "count name time speed heat fan power cable port wire desk lamp book apple pear plum tree river stone cloud"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a folder is made of."""

    arch: str = "llama"
    hidden: int = 64
    layers: int = 2
    vocab: int = 512
    ctx: int = 2048
    bits: int = 0
    dtype: str = "float32"
    seed: int = 0
    name: str = "tiny"


def make(out: Path, recipe: Recipe) -> Path:
    """Write the folder; its path."""
    out.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(out, recipe)
    _write_weights(out, _config(recipe, ids), recipe)
    generation = {"bos_token_id": ids["<|bos|>"], "eos_token_id": [ids["<|endoftext|>"], ids["<|im_end|>"]]}
    (out / "generation_config.json").write_text(json.dumps(generation))
    return out


def _config(recipe: Recipe, ids: dict[str, int]) -> dict[str, Any]:
    heads = 4
    config: dict[str, Any] = {
        "model_type": recipe.arch,
        "_name_or_path": recipe.name,
        "hidden_size": recipe.hidden,
        "num_hidden_layers": recipe.layers,
        "intermediate_size": recipe.hidden * 2,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "head_dim": recipe.hidden // heads,
        "rms_norm_eps": 1e-6,
        "vocab_size": recipe.vocab,
        "max_position_embeddings": recipe.ctx,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": recipe.dtype,
        "bos_token_id": ids["<|bos|>"],
        "eos_token_id": [ids["<|endoftext|>"], ids["<|im_end|>"]],
    }
    if recipe.arch == "gemma3_text":
        config |= {
            "sliding_window": 32,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": recipe.hidden // heads,
            "rope_local_base_freq": 10000.0,
        }
    return config


def _write_weights(out: Path, config: dict[str, Any], recipe: Recipe) -> None:
    mx: Any = importlib.import_module("mlx.core")
    trees: Any = importlib.import_module("mlx.utils")
    utils: Any = importlib.import_module("mlx_lm.utils")
    architecture: Any = importlib.import_module(f"mlx_lm.models.{recipe.arch}")
    mx.random.seed(recipe.seed)
    model = architecture.Model(architecture.ModelArgs.from_dict(config))

    def widened(array: Any) -> Any:
        if not mx.issubdtype(array.dtype, mx.floating):
            return array
        return (array * 3.0 if array.ndim > 1 else array).astype(getattr(mx, recipe.dtype))

    model.update(trees.tree_map(widened, model.parameters()))
    mx.eval(model.parameters())
    if recipe.bits:
        model, config = utils.quantize_model(model, config, group_size=32, bits=recipe.bits)
    utils.save_model(out, model)
    utils.save_config(config, config_path=out / "config.json")


def _write_tokenizer(out: Path, recipe: Recipe) -> dict[str, int]:
    library: Any = importlib.import_module("tokenizers")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=recipe.vocab, special_tokens=[*SPECIAL, *MARKERS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_sentences(recipe.seed), trainer)
    short = recipe.vocab - tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([f"<|spare_{n}|>" for n in range(short)])
    body = cast(dict[str, Any], json.loads(tokenizer.to_str()))
    for token in body["added_tokens"]:
        # A reader of answers wants to see these, and a decoder leaves special tokens out.
        token["special"] = token["content"] not in MARKERS
    (out / "tokenizer.json").write_text(json.dumps(body))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": recipe.ctx,
        "bos_token": "<|bos|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    (out / "chat_template.jinja").write_text(TEMPLATE)
    return {token["content"]: token["id"] for token in body["added_tokens"]}


def _sentences(seed: int) -> list[str]:
    chance = random.Random(seed)
    words = _WORDS.split()
    plain = [" ".join(chance.choices(words, k=12)) + "." for _ in range(600)]
    data = [json.dumps({chance.choice(words): chance.randrange(1000), "ok": True}) for _ in range(200)]
    return plain + data


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tiny_models", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arch", choices=ARCHITECTURES, default="llama")
    for name in ("hidden", "layers", "vocab", "ctx", "bits", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Recipe(), name))
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--name", default="tiny")
    arguments = vars(parser.parse_args())
    out = cast(Path, arguments.pop("out"))
    print(make(out, Recipe(**arguments)))


if __name__ == "__main__":
    main()
