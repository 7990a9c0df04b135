"""Whatever a model folder holds, it is opened or refused as `unsupported_model`, and what it says is finite."""

import json
import math
import random
import struct
from pathlib import Path
from typing import Any, cast

import pytest

from mlx_runtime.errors import Code, RuntimeFault
from mlx_runtime.folder import ModelFolder, open_folder

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "eos_token_id": [2],
    "rope_scaling": {"factor": 2.0, "original_max_position_embeddings": 128},
    "quantization": {"group_size": 32, "a": {"group_size": 64}},
    "text_config": {"vocab_size": 64, "max_position_embeddings": 256},
}
HEADER: dict[str, Any] = {
    "__metadata__": {"format": "mlx"},
    "a.weight": {"dtype": "U32", "shape": [2, 4], "data_offsets": [0, 32]},
    "a.scales": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [32, 40]},
}
FILES: dict[str, Any] = {
    "config.json": CONFIG,
    "tokenizer_config.json": {"eos_token": {"content": "</s>"}, "model_max_length": 1e30},
    "generation_config.json": {"eos_token_id": 3},
    "tokenizer.json": {"added_tokens": [{"id": 2, "content": "</s>"}]},
    "model.safetensors.index.json": {"weight_map": {"a.weight": "model.safetensors"}},
}
NONSENSE: list[Any] = [None, True, -1, 0, 2**70, 1.5, math.inf, math.nan, "", "x", [], [[]], {}, {"a": None}, [1, "2"]]


def changed(value: Any, chance: random.Random) -> Any:
    """The same with one part of it another, or gone."""
    if chance.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return chance.choice(NONSENSE)
    copy: Any = cast(Any, value).copy()
    key: Any = chance.choice(list(copy) if isinstance(value, dict) else list(range(len(copy))))
    if chance.random() < 0.2:
        del copy[key]
    else:
        copy[key] = changed(copy[key], chance)
    return copy


def write(folder: Path, files: dict[str, Any], header: bytes) -> None:
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    data = struct.pack("<Q", len(header)) + header + bytes(40)
    (folder / "model.safetensors").write_bytes(data)


def judged(folder: Path) -> ModelFolder | None:
    """Opened, or refused in the one way; everything else is an error of ours."""
    found = fault = None
    try:
        found = open_folder(str(folder))
    except RuntimeFault as refused:
        fault = refused
    if found is None:
        assert fault is not None
        assert fault.code == Code.UNSUPPORTED_MODEL
        assert len(str(fault)) < 1_000
        return None
    assert found.vocab_size >= 1
    assert 1 <= found.context_length <= 1 << 41
    assert isinstance(found.parameters + found.weights_bytes, int)
    assert found.dtype in ("float64", "float32", "float16", "bfloat16")
    assert all(isinstance(token, int) for token in found.eos_ids)
    return found


def test_a_good_folder_opens(tmp_path: Path) -> None:
    write(tmp_path, FILES, json.dumps(HEADER).encode())
    found = judged(tmp_path)
    assert found is not None
    assert (found.weights_bytes, found.eos_ids, found.context_length) == (40, (3,), 256)


def test_nonsense_anywhere_is_opened_or_refused(tmp_path: Path) -> None:
    chance, opened = random.Random(7), 0
    for _ in range(1_500):
        files, header = FILES, HEADER
        for _ in range(chance.randint(1, 3)):
            if chance.random() < 0.4:
                header = changed(header, chance)
            else:
                name = chance.choice(list(FILES))
                files = files | {name: changed(files[name], chance)}
        write(tmp_path, files, json.dumps(header).encode())
        opened += judged(tmp_path) is not None
    assert 100 < opened < 1_400, opened


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_what_nests_without_an_end_or_is_noise_is_refused(tmp_path: Path, name: str) -> None:
    chance = random.Random(8)
    noise = [chance.randbytes(60).decode("latin-1") for _ in range(50)]
    for text in ["[" * 200_000, '{"a":' * 200_000, "\ud800", *noise]:
        raw = text.encode("utf-8", "surrogatepass")
        write(tmp_path, FILES, raw if name == "model.safetensors" else json.dumps(HEADER).encode())
        if name != "model.safetensors":
            (tmp_path / name).write_bytes(raw)
        assert judged(tmp_path) is None


def test_a_length_that_is_not_there_is_refused_unread(tmp_path: Path) -> None:
    write(tmp_path, FILES, b"")
    for length in [1, 40, 1 << 26, 1 << 40, 2**64 - 1]:
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        assert judged(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"\1\0")
    assert judged(tmp_path) is None
