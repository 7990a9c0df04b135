"""Rules of the package that no linter knows: who may import MLX, what is never called, how long a file may be."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import PYTHON
from mlx_runtime.limits import KV_QUANTUM_TOKENS

PACKAGE = PYTHON / "mlx_runtime"
FAKE = PYTHON.parent / "tests" / "fake_runtime"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL = [*SOURCES, *sorted(FAKE.glob("*.py")), *sorted((PYTHON / "tests").glob("*.py"))]


def imports(file: Path) -> set[str]:
    """The top-level packages a file imports, by statement or by name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=names):
                found |= {name.name.split(".")[0] for name in names}
            case ast.ImportFrom(module=str(module)):
                found.add(module.split(".")[0])
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module))]):
                found.add(module.split(".")[0])
            case _:
                pass
    return found


def test_only_the_engine_imports_mlx() -> None:
    guilty = {file for file in [*SOURCES, *FAKE.glob("*.py")] if imports(file) & {"mlx", "mlx_lm", "transformers"}}
    assert {file.parent for file in guilty} == {PACKAGE / "engine"}


def test_the_fake_runtime_starts_without_mlx_or_numpy() -> None:
    code = "import sys, fake_runtime.__main__; print(sorted({m.split('.')[0] for m in sys.modules}))"
    paths = {"PYTHONPATH": f"{PYTHON}:{FAKE.parent}"}
    done = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, check=True, text=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {"mlx", "mlx_lm", "transformers", "numpy", "tokenizers"}


@pytest.mark.parametrize("word", ["set_wired_limit", "trust_remote_code", "BatchGenerator(", "pickle", "eval("])
def test_a_dangerous_word_is_in_no_source(word: str) -> None:
    code = {file.name: re.sub(r'""".*?"""|#.*', "", file.read_text(), flags=re.DOTALL) for file in SOURCES}
    guilty = [name for name, text in code.items() if word in text.replace("_core.eval(", "").replace("async_eval(", "")]
    assert guilty == []


def test_mlx_lm_keeps_the_private_parts_the_adapter_leans_on() -> None:
    generate: Any = importlib.import_module("mlx_lm.generate")
    cache: Any = importlib.import_module("mlx_lm.models.cache")
    assert callable(generate._merge_caches)
    for kind in (cache.BatchKVCache, cache.BatchRotatingKVCache):
        assert all(hasattr(kind, name) for name in ("filter", "extend", "state", "prepare", "finalize"))
    assert cache.BatchKVCache.step == KV_QUANTUM_TOKENS
    assert hasattr(cache.KVCache, "merge")
    assert not hasattr(cache.QuantizedKVCache, "merge")


def test_every_file_says_what_it_is_and_stays_short() -> None:
    for file in ALL:
        assert ast.get_docstring(ast.parse(file.read_text())), file
        assert len(file.read_text().splitlines()) <= 500, file


def test_no_function_is_longer_than_seventy_lines() -> None:
    for file in ALL:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                assert node.end_lineno - node.lineno < 70, (file, node.name)


def test_the_locks_pin_hashes_and_name_no_place_to_get_packages_from() -> None:
    for lock in (PYTHON / "requirements").glob("*.txt"):
        text = lock.read_text()
        pins = re.findall(r"^[a-z0-9._-]+==\S+", text, flags=re.MULTILINE)
        assert len(pins) > 10
        assert text.count("--hash=sha256:") >= len(pins)
        assert "://" not in text
        assert "--index" not in text


def test_the_locks_of_all_platforms_agree_on_versions() -> None:
    def versions(name: str) -> dict[str, str]:
        text = (PYTHON / "requirements" / name).read_text()
        return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE))

    linux, arm, mac, dev = (versions(f"{n}.txt") for n in ("linux-x86_64", "linux-aarch64", "macos-arm64", "dev"))
    assert linux == arm
    assert set(linux) ^ set(mac) == {"mlx-cpu", "mlx-metal"}
    assert all(mac[name] == version for name, version in linux.items() if name in mac)
    assert all(linux[name] == version for name, version in dev.items() if name in linux)
    assert (mac["mlx"], mac["mlx-lm"]) == ("0.32.4", "0.32.2")
