"""Fetching from a small hub on loopback: what is taken, what is told, and what happens when there is no hub."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import PYTHON
from mlx_runtime.fetch import FetchFault, fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "toy"}',
    "model.safetensors": bytes(range(256)) * 4096,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "merges.txt": b"a b",
    "pytorch_model.bin": b"never",
    "modeling_toy.py": b"raise SystemExit",
    "original/params.json": b"{}",
}


class Hub(BaseHTTPRequestHandler):
    """The three answers a download needs. `asked` notes every path, `tokens` every Authorization header."""

    asked: list[str] = []  # noqa: RUF012 - the handler class is all a server keeps
    tokens: list[str | None] = []  # noqa: RUF012
    status = 200

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names them
        """Say nothing."""

    def _answer(self, body: bool) -> None:
        Hub.asked.append(self.path)
        Hub.tokens.append(self.headers.get("Authorization"))
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        if self.path.startswith("/api/models/org/toy") and Hub.status == 200:
            siblings = [{"rfilename": n, "size": len(data)} for n, data in FILES.items()]
            self.send_file(200, json.dumps({"id": "org/toy", "sha": COMMIT, "siblings": siblings}).encode(), body, {})
        elif name in FILES and Hub.status == 200:
            data = FILES[name]
            tag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self.send_file(200, data, body, tag)
        else:
            status = Hub.status if Hub.status != 200 else 404
            code = {403: {"X-Error-Code": "GatedRepo"}, 404: {"X-Error-Code": "RepoNotFound"}}
            self.send_file(status, b"{}", body, code.get(status, {}))

    def send_file(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub() -> Generator[str]:
    """The address of a hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.asked, Hub.tokens, Hub.status = [], [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetched(model_id: str, into: Path, hub: str, **env: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status and the lines of one run."""
    settings = os.environ | {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(into / "home")}
    settings |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONPATH": str(PYTHON)} | env
    command = [sys.executable, "-m", "mlx_runtime.fetch", model_id, "--into", str(into / "models")]
    done = subprocess.run(command, env=settings, capture_output=True, check=False, timeout=60)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_model_is_fetched_without_code_and_other_formats(hub: str, tmp_path: Path) -> None:
    status, lines = fetched("org/toy", tmp_path, hub, HF_TOKEN="hf_secret")  # noqa: S106 - the hub here takes any
    folder = tmp_path / "models" / "org" / "toy"
    assert (status, lines[-1]) == (0, {"event": "done", "path": str(folder)})
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "merges.txt"}
    assert {str(file.relative_to(folder)) for file in folder.rglob("*")} == wanted
    assert all((folder / name).read_bytes() == FILES[name] for name in wanted)
    total = sum(len(FILES[name]) for name in wanted)
    assert {**lines[-2], "file": ""} == {"event": "progress", "done_bytes": total, "total_bytes": total, "file": ""}
    assert set(Hub.tokens) == {"Bearer hf_secret"}
    assert not any(name in path for path in Hub.asked for name in (".py", ".bin", "original"))


def test_what_an_older_revision_left_is_not_part_of_the_model(hub: str, tmp_path: Path) -> None:
    staging = tmp_path / "models" / "org" / "toy.partial"
    (staging / "older").mkdir(parents=True)
    for name in ("model-00003-of-00003.safetensors", "older/config.json"):
        (staging / name).write_bytes(b"of another revision")
    assert fetched("org/toy", tmp_path, hub)[0] == 0
    folder = tmp_path / "models" / "org" / "toy"
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "merges.txt"}
    assert {file.name for file in folder.iterdir()} == wanted


def test_progress_is_told_also_where_the_models_lie_in_a_cache(hub: str, tmp_path: Path) -> None:
    _, lines = fetched("org/toy", tmp_path / ".cache", hub)
    assert lines[-2]["done_bytes"] == lines[-2]["total_bytes"] > 0


def test_a_model_that_is_here_is_not_asked_for_again(hub: str, tmp_path: Path) -> None:
    fetched("org/toy", tmp_path, hub)
    Hub.asked.clear()
    status, lines = fetched("org/toy", tmp_path, hub, HF_HUB_OFFLINE="1")
    assert (status, [line["event"] for line in lines], Hub.asked) == (0, ["done"], [])


@pytest.mark.parametrize("model_id", ["../x", "/etc/passwd", "a/../b", "a/b/c", "", "a//b", "a\\b", ".hidden/x"])
def test_an_id_that_is_no_id_is_refused_without_asking(model_id: str, hub: str, tmp_path: Path) -> None:
    status, (line,) = fetched(model_id, tmp_path, hub)
    assert (status, line["event"], line["code"], Hub.asked) == (1, "error", "bad_id", [])
    assert not (tmp_path / "models").exists()


def test_an_unreachable_hub_is_told_at_once_with_what_else_can_be_done(tmp_path: Path) -> None:
    status, (line,) = fetched("org/toy", tmp_path, "http://127.0.0.1:9")
    assert (status, line["code"]) == (1, "unreachable")
    assert all(word in line["text"] for word in ("--model PATH", "HF_ENDPOINT", "demo model"))


def test_offline_mode_asks_nobody(hub: str, tmp_path: Path) -> None:
    status, (line,) = fetched("org/toy", tmp_path, hub, HF_HUB_OFFLINE="1")
    assert (status, line["code"], Hub.asked) == (1, "offline", [])
    assert "HF_HUB_OFFLINE" in line["text"]


@pytest.mark.parametrize(("answer", "code"), [(404, "not_found"), (403, "gated"), (500, "hub_error")])
def test_what_the_hub_refuses_is_told_by_a_code(answer: int, code: str, hub: str, tmp_path: Path) -> None:
    Hub.status = answer
    status, lines = fetched("org/toy", tmp_path, hub)
    assert (status, lines[-1]["code"]) == (1, code)


def test_a_repository_without_safetensors_is_refused(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FILES, "model.safetensors")
    status, (line,) = fetched("org/toy", tmp_path, hub)
    assert (status, line["code"]) == (1, "no_weights")


def test_a_broken_download_leaves_no_folder_and_the_next_run_completes_it(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FILES["lost.json"] = b"{}"
    monkeypatch.setattr(Hub, "send_file", _losing(Hub.send_file))
    status, lines = fetched("org/toy", tmp_path, hub)
    del FILES["lost.json"]
    assert (status, lines[-1]["event"]) == (1, "error")
    assert not (tmp_path / "models" / "org" / "toy").exists()
    monkeypatch.undo()
    assert fetched("org/toy", tmp_path, hub)[0] == 0


def test_a_disk_that_others_fill_meanwhile_ends_the_download_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, free = threading.Event(), iter([1 << 40])

    def waiting(*_: object, **__: object) -> None:
        ended.wait(5)

    def usage(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=next(free, (1 << 30) - 1))

    hub = SimpleNamespace(HfApi=lambda: SimpleNamespace(model_info=_one_file), hf_hub_download=waiting)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(FetchFault) as caught:
        fetch("org/toy", tmp_path / "models", lambda _: None)
    ended.set()
    assert caught.value.code == "disk_full"
    assert not (tmp_path / "models" / "org" / "toy").exists()


def _one_file(*_: object, **__: object) -> SimpleNamespace:
    return SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors", size=1 << 20)], sha=COMMIT)


def _losing(send: Any) -> Any:
    def losing(self: Hub, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
        if self.path.endswith("lost.json"):
            send(self, 404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
        else:
            send(self, status, data, body, headers)

    return losing
