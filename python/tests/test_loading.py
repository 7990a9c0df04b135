"""What may be loaded, what is refused with which code, and the facts a load tells."""

import json
import math
import shutil
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest

from agent import Agent, QuestionFailed, agent
from conftest import MakeModel
from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.folder import open_folder
from test_generation import RECIPES
from tiny_models import Recipe


def copied(folder: Path, tmp_path: Path, **config: object) -> Path:
    """A copy with a changed config; None removes a key."""
    out = Path(shutil.copytree(folder, tmp_path / "model"))
    body = json.loads((out / "config.json").read_text()) | config
    (out / "config.json").write_text(json.dumps({key: value for key, value in body.items() if value is not None}))
    return out


def weights(folder: Path) -> list[mx.array]:
    """Every tensor of a folder."""
    return [array for file in folder.glob("*.safetensors") for array in cast(Any, mx).load(str(file)).values()]


def refusal(folder: Path | str) -> Code:
    """The code a folder is refused with."""
    with pytest.raises(RuntimeFault) as caught:
        open_folder(str(folder))
    return caught.value.code


def test_a_path_that_is_no_local_folder_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path / "file", "organisation/name", "."):
        assert refusal(path) is Code.MODEL_NOT_FOUND


@pytest.mark.parametrize("other", ["pytorch_model.bin", "model.pt", "weights.npz", "model.gguf"])
def test_weights_in_any_other_format_are_refused(other: str, llama: Path, tmp_path: Path) -> None:
    folder = copied(llama, tmp_path)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / other).write_bytes(b"\x80\x02")
    assert refusal(folder) is Code.UNSUPPORTED_MODEL


@pytest.mark.parametrize("config", [{"auto_map": {"AutoModel": "x.Y"}}, {"model_file": "x.py"}])
def test_a_folder_that_asks_for_its_own_code_is_refused(config: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    assert refusal(copied(llama, tmp_path, **config)) is Code.UNSUPPORTED_MODEL


def test_a_tokenizer_that_asks_for_its_own_code_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copied(llama, tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    assert refusal(folder) is Code.UNSUPPORTED_MODEL


def test_a_cut_or_missing_weight_file_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copied(llama, tmp_path)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for cut in (0, 7, 100, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        assert refusal(folder) is Code.UNSUPPORTED_MODEL
    weights.rename(folder / "model-00001.safetensors")
    assert refusal(folder) is Code.UNSUPPORTED_MODEL


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_is_no_object_is_refused(text: str, llama: Path, tmp_path: Path) -> None:
    folder = copied(llama, tmp_path)
    (folder / "config.json").write_text(text)
    assert refusal(folder) is Code.UNSUPPORTED_MODEL


CONTEXTS: list[tuple[dict[str, Any], int]] = [
    ({}, 2048),
    ({"max_position_embeddings": None, "n_positions": 77}, 77),
    ({"max_position_embeddings": None, "text_config": {"max_position_embeddings": 99, "vocab_size": 512}}, 99),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}}, 8192),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 128}}, 2048),
    ({"rope_scaling": {"type": "linear", "factor": 8.0}}, 2048),
    ({"rope_parameters": {"factor": 2, "original_max_position_embeddings": 2048}}, 4096),
    ({"rope_scaling": {"factor": "x", "original_max_position_embeddings": True}}, 2048),
]


@pytest.mark.parametrize(("config", "expected"), CONTEXTS)
def test_the_context_length_is_read_wherever_a_config_states_it(
    config: dict[str, Any], expected: int, llama: Path, tmp_path: Path
) -> None:
    assert open_folder(str(copied(llama, tmp_path, **config))).context_length == expected


def test_without_a_config_entry_the_tokenizer_or_a_safe_default_gives_the_context_length(
    llama: Path, tmp_path: Path
) -> None:
    folder = copied(llama, tmp_path, max_position_embeddings=None)
    assert open_folder(str(folder)).context_length == 2048
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 333}))
    assert open_folder(str(folder)).context_length == 333
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1e30}))
    assert open_folder(str(folder)).context_length == 2048


def test_end_of_sequence_ids_come_from_the_most_deliberate_file(llama: Path, tmp_path: Path) -> None:
    folder = copied(llama, tmp_path, eos_token_id=7)
    assert open_folder(str(folder)).eos_ids == (2, 4)
    (folder / "generation_config.json").unlink()
    assert open_folder(str(folder)).eos_ids == (7,)
    config = json.loads((folder / "config.json").read_text()) | {"eos_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    assert open_folder(str(folder)).eos_ids == (4,)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.arch}-{r.bits or r.dtype}")
def test_the_facts_of_a_load_are_true(recipe: Recipe, model: MakeModel) -> None:
    folder = model(recipe)
    with agent() as running:
        before = running.ask("info")["active_bytes"]
        facts = running.load(folder)
        held = running.ask("info")["active_bytes"] - before
        running.ask("unload")
        assert running.ask("info")["active_bytes"] - before <= 64
    assert facts["weights_bytes"] == sum(array.nbytes for array in weights(folder))
    assert 0 <= held - facts["weights_bytes"] <= 1024
    plain = model(Recipe(arch=recipe.arch, seed=recipe.seed))
    assert facts["parameters"] == sum(math.prod(array.shape) for array in weights(plain))
    assert facts["parameters"] == open_folder(str(folder)).parameters
    # two layers, keys and values, 2 heads of 16; one layer of gemma3 slides and grows no further than its window
    item = 2 if recipe.dtype == "bfloat16" else 4
    growing = 1 if recipe.arch == "gemma3_text" else 2
    assert facts["kv_bytes_per_token"] == growing * 2 * 2 * 16 * item
    assert (facts["kv_bytes_per_row"] > 0) == (recipe.arch == "gemma3_text")
    assert (facts["model_type"], facts["dtype"], facts["vocab_size"]) == (recipe.arch, recipe.dtype, 512)
    assert (facts["context_length"], facts["eos_ids"]) == (2048, [2, 4])


def failed(running: Agent, path: Path) -> str:
    """The code a load fails with."""
    with pytest.raises(QuestionFailed) as caught:
        running.load(path)
    return caught.value.code


def test_a_failed_load_leaves_a_runtime_that_can_load(llama: Path, tmp_path: Path) -> None:
    with agent() as running:
        assert failed(running, tmp_path / "none") == "model_not_found"
        unknown = copied(llama, tmp_path / "a", model_type="never_heard_of")
        assert failed(running, unknown) == "unsupported_model"
        assert failed(running, copied(llama, tmp_path / "b", model_type="llama.x")) == "unsupported_model"
        assert failed(running, copied(llama, tmp_path / "c", num_hidden_layers=3)) == "unsupported_model"
        running.load(llama)
        assert failed(running, llama) == "already_loaded"
        assert running.run([20, 21], 2).finish == "length"


def test_tokenize_tells_the_models_own_ids_with_and_without_special_tokens(runtime: Agent) -> None:
    text = "<|im_start|>user\nroom of macs\n<|im_end|>"
    ids = runtime.ask("tokenize", text, False)["ids"]
    assert (ids[0], ids[-1]) == (3, 4)
    assert runtime.ask("tokenize", "", True)["ids"] == []
