"""What a model folder says about itself: config, weight headers, context length, end-of-sequence ids. No MLX.

It owns the judgement whether a folder may be loaded. It refuses anything but an existing local folder of safetensors,
and folders whose config asks for code of their own: weights are data, and nothing in a folder is ever executed.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from mlx_runtime.errors import Code, RuntimeFault

_HEADER_BYTES_MAX: Final = 100 * 1024 * 1024  # the bound the safetensors format sets itself
_CONTEXT_DEFAULT: Final = 2048  # a folder that states no context length gets the shortest any known family has
_CONTEXT_MAX: Final = 1 << 30  # some tokenizers state 1e30 for "no limit"
_CONTEXT_KEYS: Final = (
    "max_position_embeddings",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "n_positions",
    "n_ctx",
)
_FLOAT_TYPES: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that may be loaded."""

    path: Path
    config: Json
    tensors: dict[str, Tensor]
    eos_ids: tuple[int, ...]
    context_length: int

    @property
    def model_type(self) -> str:
        """The architecture's name."""
        return str(self.config.get("model_type", ""))

    @property
    def vocab_size(self) -> int:
        """Rows of the output distribution."""
        return int(text_config(self.config).get("vocab_size") or self.config.get("vocab_size") or 0)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors: exactly what the device holds after loading."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())

    @property
    def dtype(self) -> str:
        """The type the model computes in: the floating type most of the non-integer bytes have."""
        totals: dict[str, int] = {}
        for tensor in self.tensors.values():
            if tensor.dtype in _FLOAT_TYPES:
                totals[tensor.dtype] = totals.get(tensor.dtype, 0) + tensor.size_bytes
        return _FLOAT_TYPES[max(totals, key=lambda name: totals[name])] if totals else "float32"

    @property
    def parameters(self) -> int:
        """Parameters before quantization: packed words are counted as the weights they hold, scales are not."""
        total = 0
        for name, tensor in self.tensors.items():
            base, _, leaf = name.rpartition(".")
            scales = self.tensors.get(f"{base}.scales")
            if scales is None or leaf not in ("weight", "scales", "biases"):
                total += math.prod(tensor.shape)
            elif leaf == "weight":
                total += math.prod(scales.shape) * self._group_size(base)
        return total

    def _group_size(self, base: str) -> int:
        settings = cast(Json, self.config.get("quantization") or self.config.get("quantization_config") or {})
        own = settings.get(base)
        if isinstance(own, dict):
            return int(cast(Json, own).get("group_size") or settings.get("group_size") or 64)
        return int(settings.get("group_size") or 64)


def open_folder(path: str) -> ModelFolder:
    """Read and judge a folder. Raises `RuntimeFault`."""
    try:
        return _opened(path)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        # Values of another kind than any tool writes, or nested without an end. Not repeated: they may be long.
        kind = type(error).__name__
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{path}: its configuration is damaged ({kind})") from error


def _opened(path: str) -> ModelFolder:
    folder = Path(path)
    if not folder.is_absolute() or not folder.is_dir():
        raise RuntimeFault(Code.MODEL_NOT_FOUND, f"{path} is not a model folder on this machine; give an absolute path")
    config = _json(folder / "config.json")
    if config is None:
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{path} has no config.json")
    _refuse_code(folder, config)
    tensors = _tensors(folder)
    eos_ids = _eos_ids(folder, config)
    found = ModelFolder(folder, config, tensors, eos_ids, _context_length(folder, config))
    if not found.model_type or found.vocab_size < 1:
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{path}: config.json names no model_type or no vocab_size")
    _ = found.parameters  # what is asked later must not fail then
    return found


def text_config(config: Json) -> Json:
    """The part of a config that describes the language model; multimodal configs nest it."""
    nested = config.get("text_config")
    return cast(Json, nested) if isinstance(nested, dict) else config


def _refuse_code(folder: Path, config: Json) -> None:
    tokenizer = _json(folder / "tokenizer_config.json") or {}
    if config.get("auto_map") or config.get("model_file") or tokenizer.get("auto_map"):
        raise RuntimeFault(
            Code.UNSUPPORTED_MODEL, f"{folder} needs code of its own (auto_map or model_file), which is never run"
        )


def _tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        other = sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".npz", ".gguf"))
        found = f"; found {other[0]}, whose format is not loaded" if other else ""
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{folder} has no model*.safetensors{found}")
    index = _json(folder / "model.safetensors.index.json")
    wanted = set(cast(dict[str, str], index.get("weight_map", {})).values()) if index else set[str]()
    missing = sorted(wanted - {file.name for file in files})
    if missing:
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{folder} is incomplete: {missing[0]} is missing")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_header(file))
    return tensors


def _header(file: Path) -> dict[str, Tensor]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _HEADER_BYTES_MAX:
                raise ValueError("the header is too long")
            header = cast(dict[str, Json], json.loads(stream.read(length)))
        entries = {name: _tensor(entry) for name, entry in header.items() if name != "__metadata__"}
        data_bytes = max((int(e["data_offsets"][1]) for n, e in header.items() if n != "__metadata__"), default=0)
        if file.stat().st_size < 8 + length + data_bytes:
            raise ValueError("the file ends early")
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{file} is not a whole safetensors file: {error}") from error
    return entries


def _tensor(entry: Json) -> Tensor:
    begin, end = entry["data_offsets"]
    return Tensor(str(entry["dtype"]), tuple(int(n) for n in entry["shape"]), int(end) - int(begin))


def _context_length(folder: Path, config: Json) -> int:
    text = text_config(config)
    stated = next((int(text[key]) for key in _CONTEXT_KEYS if _is_count(text.get(key))), 0)
    if not stated:
        tokenizer = _json(folder / "tokenizer_config.json") or {}
        stated = int(tokenizer["model_max_length"]) if _is_count(tokenizer.get("model_max_length")) else 0
    return max(stated, _stretched(text)) or _CONTEXT_DEFAULT


def _stretched(text: Json) -> int:
    """The length RoPE scaling was trained for. Most configs state the product already; YaRN ones often do not."""
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(scaling, dict):
        return 0
    rope = cast(Json, scaling)
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    if not _is_count(original) or isinstance(factor, bool) or not isinstance(factor, int | float):
        return 0
    return int(cast(int, original) * factor) if 1 <= factor <= 1024 else 0


def _eos_ids(folder: Path, config: Json) -> tuple[int, ...]:
    """Where a folder may state them, the most deliberate first."""
    generation = _json(folder / "generation_config.json") or {}
    for stated in (generation.get("eos_token_id"), config.get("eos_token_id"), text_config(config).get("eos_token_id")):
        ids = cast(list[object], stated) if isinstance(stated, list) else [stated]
        found = [one for one in ids if isinstance(one, int) and not isinstance(one, bool)]
        if found:
            return tuple(sorted(set(found)))
    return _eos_of_tokenizer(folder)


def _eos_of_tokenizer(folder: Path) -> tuple[int, ...]:
    named = (_json(folder / "tokenizer_config.json") or {}).get("eos_token")
    content = cast(Json, named).get("content") if isinstance(named, dict) else named
    added = cast(list[Json], (_json(folder / "tokenizer.json") or {}).get("added_tokens") or [])
    return tuple(int(token["id"]) for token in added if content and token.get("content") == content)


def _is_count(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 1 <= value <= _CONTEXT_MAX


def _json(file: Path) -> Json | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{file} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise RuntimeFault(Code.UNSUPPORTED_MODEL, f"{file} is not a JSON object")
    return cast(Json, value)
