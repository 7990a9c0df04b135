"""`python -m mlx_runtime.fetch MODEL_ID --into DIR`: brings a model from a hub to this machine. No MLX.

It owns the download alone, in a process of its own, so that runtimes never touch the network. It takes weights and
text only (safetensors, JSON, templates, tokenizer files at the top of the repository): code is never fetched. A
folder under its final name is always whole, because files gather beside it and are renamed at the end.

Standard output carries one JSON object a line: `progress` each second with `done_bytes`, `total_bytes` and `file`,
then `done` with `path`, or `error` with `code` and `text`. Exit status 0 or 1. HF_ENDPOINT, HF_HOME, HF_TOKEN and
HF_HUB_OFFLINE mean what they mean to the hub's client.
"""

import argparse
import fcntl
import importlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

_SUFFIXES: Final = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
# A hub that does not answer the first question within this time is not there.
_ANSWER_S: Final = 8.0
_PROGRESS_S: Final = 1.0
# Room left on the disk for everything else, from the first byte of a download to its last.
_SPARE_BYTES: Final = 1 << 30
# What a folder holds beside files of the model while it is fetched: our lock, and the client's own notes.
_OURS: Final = (".lock", ".cache")
_ELSEWHERE: Final = (
    "Give a local folder with --model PATH, set HF_ENDPOINT to a mirror, or use the built-in demo model."
)
_NETWORK_FAULTS: Final = {"TransportError", "ConnectionError", "TimeoutError", "LocalEntryNotFoundError"}

Say = Callable[[dict[str, object]], None]


class FetchFault(Exception):
    """The download cannot go on; `text` says what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(slots=True)
class _State:
    """What the download thread tells the one that reports."""

    file: str = ""
    error: BaseException | None = None
    finished: threading.Event = field(default_factory=threading.Event)


def main() -> None:
    """Fetch, report, and end the process."""
    parser = argparse.ArgumentParser(prog="mlx_runtime.fetch", description=__doc__)
    parser.add_argument("model_id", help="organisation/name")
    parser.add_argument("--into", required=True, type=Path, help="the folder that holds model folders")
    arguments = parser.parse_args()
    # The client's own bars would go to standard error of a process nobody watches.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        path = fetch(arguments.model_id, arguments.into, _say)
    except FetchFault as fault:
        _say({"event": "error", "code": fault.code, "text": fault.text})
        sys.stdout.flush()
        os._exit(1)
    _say({"event": "done", "path": str(path)})
    sys.stdout.flush()
    # A thread of the client that still waits for the network must not hold the process.
    os._exit(0)


def fetch(model_id: str, into: Path, say: Say) -> Path:
    """The folder of the model, complete. Raises `FetchFault`."""
    checked = _checked(model_id)
    target = into.absolute() / checked
    if target.is_dir():
        return target
    staging = target.with_name(target.name + ".partial")
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with _alone(staging):
            names, total, revision = _listing(checked)
            _remove_strangers(staging, names)
            _refuse_full_disk(staging, total)
            get = partial(_hub().hf_hub_download, checked, revision=revision, local_dir=staging)
            _download(get, names, staging, total, say)
            shutil.rmtree(staging / ".cache", ignore_errors=True)
            staging.rename(target)
    except Exception as error:
        raise _fault(error, checked) from error
    return target


def _checked(model_id: str) -> str:
    parts = model_id.split("/")
    if not 1 <= len(parts) <= 2 or not all(_NAME.fullmatch(part) and ".." not in part for part in parts):
        raise FetchFault("bad_id", f"{model_id!r} is not a model id; it looks like organisation/name")
    return model_id


@contextmanager
def _alone(staging: Path) -> Generator[None]:
    with (staging / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FetchFault("busy", f"another process is downloading into {staging}") from error
        yield
    (staging.with_name(staging.name.removesuffix(".partial")) / ".lock").unlink(missing_ok=True)


def _listing(model_id: str) -> tuple[list[str], int, str | None]:
    info = _hub().HfApi().model_info(model_id, files_metadata=True, timeout=_ANSWER_S)
    sizes = {str(file.rfilename): int(file.size or 0) for file in cast(list[Any], info.siblings or [])}
    wanted = {name: size for name, size in sizes.items() if name.endswith(_SUFFIXES) and "/" not in name}
    if not any(name.endswith(".safetensors") for name in wanted):
        raise FetchFault("no_weights", f"{model_id} has no safetensors weights; pick a repository that does")
    # Small files first: a wrong repository shows itself before its weights have crossed the wire.
    return sorted(wanted, key=lambda name: (wanted[name], name)), sum(wanted.values()), info.sha


def _remove_strangers(staging: Path, names: list[str]) -> None:
    """An earlier try may have left files that this revision does not have: as part of the model they would spoil it."""
    for entry in staging.iterdir():
        if entry.name in names or entry.name in _OURS:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _refuse_full_disk(staging: Path, total: int) -> None:
    free = shutil.disk_usage(staging).free + _held(staging)
    if total + _SPARE_BYTES > free:
        raise FetchFault("disk_full", f"the model takes {total} bytes, {staging.parent} has {free} free")


def _download(get: Callable[[str], object], names: list[str], staging: Path, total: int, say: Say) -> None:
    state = _State()

    def run() -> None:
        try:
            for name in names:
                state.file = name
                get(name)
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that reports
            state.error = error
        finally:
            state.finished.set()

    threading.Thread(target=run, daemon=True).start()
    while True:
        finished = state.finished.wait(_PROGRESS_S)
        done = min(_held(staging), total)
        say({"event": "progress", "done_bytes": done, "total_bytes": total, "file": state.file})
        if finished:
            break
        free = shutil.disk_usage(staging).free
        if free < _SPARE_BYTES:
            text = f"others fill the disk: {staging.parent} has {free} bytes free, and {_SPARE_BYTES} are left alone"
            raise FetchFault("disk_full", text)
    if state.error is not None:
        raise state.error


def _held(staging: Path) -> int:
    total = 0
    for file in staging.rglob("*"):
        try:
            # The client keeps unfinished files under .cache, with the notes it resumes from.
            if file.is_file() and (".cache" not in file.relative_to(staging).parts or file.suffix == ".incomplete"):
                total += file.stat().st_size
        except OSError:
            continue
    return total


def _fault(error: BaseException, model_id: str) -> FetchFault:
    if isinstance(error, FetchFault):
        return error
    kinds = {kind.__name__ for kind in type(error).__mro__}
    endpoint, detail = os.environ.get("HF_ENDPOINT", "the hub"), f"{type(error).__name__}: {str(error)[:300]}"
    for names, code, text in (
        ({"OfflineModeIsEnabled"}, "offline", f"{model_id} is not here and HF_HUB_OFFLINE is set. {_ELSEWHERE}"),
        ({"GatedRepoError"}, "gated", f"{model_id} asks for consent: accept its terms on the hub and set HF_TOKEN"),
        ({"RepositoryNotFoundError"}, "not_found", f"{endpoint} has no {model_id}, or HF_TOKEN may not read it"),
        (_NETWORK_FAULTS, "unreachable", f"{endpoint} cannot be reached ({type(error).__name__}). {_ELSEWHERE}"),
        ({"HfHubHTTPError", "JSONDecodeError"}, "hub_error", f"{endpoint} did not answer as a hub does: {detail}"),
        ({"OSError"}, "disk", f"the model cannot be written: {error}"),
    ):
        if kinds & names:
            return FetchFault(code, text)
    return FetchFault("internal", detail)


def _hub() -> Any:
    return cast(Any, importlib.import_module("huggingface_hub"))


def _say(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    main()
