"""Stands in for the agent: listens on a socket, starts a runtime process, speaks frames, gathers what comes back.

It owns the client's side of the contract and checks, on every frame, what the contract promises of any stream: one
`hello` first, no frame about a row after its end. It refuses to interpret answers; the tests do.
"""

import itertools
import os
import queue
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

_codec = cast(Any, msgpack)
PYTHON = Path(__file__).resolve().parent.parent
GREEDY: dict[str, object] = {"temperature": 0.0}
# Long enough for the slowest machine; no test expects a certain speed.
PATIENCE_S = 60.0


@dataclass(slots=True)
class Answer:
    """All that was heard of one row."""

    ids: list[int] = field(default_factory=list[int])
    logprobs: list[Any] = field(default_factory=list[Any])
    finish: str | None = None
    last: dict[str, Any] = field(default_factory=dict[str, Any])
    deltas: int = 0


class QuestionFailed(Exception):
    """An `error` frame answered a question."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Agent:
    """One runtime process and the socket to it."""

    def __init__(self, module: str = "mlx_runtime", arguments: tuple[str, ...] = (), env: dict[str, str] | None = None):
        self._calls = itertools.count(1)
        self._numbers = itertools.count(1)
        self._folder = tempfile.TemporaryDirectory(prefix="rt")
        path = str(Path(self._folder.name) / "s")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(1)
        paths = os.pathsep.join(str(p) for p in (PYTHON, PYTHON / "tests", PYTHON.parent / "tests"))
        settings = os.environ | {"PYTHONPATH": paths, "MLX_DISABLE_COMPILE": "1"} | (env or {})
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--socket", path, *arguments],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=settings,
        )
        listener.settimeout(PATIENCE_S)
        self.socket, _ = listener.accept()
        listener.close()
        self.frames: list[list[Any]] = []
        self.answers: dict[int, Answer] = {}
        self.replies: dict[int, list[Any]] = {}
        self.errors: list[list[Any]] = []
        self.garbled = 0
        self.listening = threading.Event()
        self.listening.set()
        self.closed = False
        self.faults: list[str] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self._log: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._drain_log, daemon=True).start()

    # --- questions ---

    def send(self, frame: object) -> None:
        """Send any value as a frame."""
        body = cast(bytes, _codec.packb(frame))
        self.send_bytes(struct.pack("<I", len(body)) + body)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def ask(self, verb: str, *rest: object) -> dict[str, Any]:
        """Ask and wait for the reply; raises `QuestionFailed`."""
        return self.reply(self.question(verb, *rest))

    def question(self, verb: str, *rest: object) -> int:
        """Ask; the call to wait for."""
        call = next(self._calls)
        self.send([verb, call, *rest])
        return call

    def reply(self, call: int) -> dict[str, Any]:
        """Wait for a reply."""
        self.wait(lambda: call in self.replies)
        kind, *value = self.replies[call]
        if kind == "error":
            raise QuestionFailed(str(value[0]), str(value[1]))
        return cast(dict[str, Any], value[0])

    def load(self, path: Path, prefill_chunk: int = 64, max_rows: int = 16) -> dict[str, Any]:
        """Load a model."""
        return self.ask("load", {"path": str(path), "prefill_chunk": prefill_chunk, "max_rows": max_rows})

    def start(self, ids: list[int], max_tokens: int = 16, sampling: object = None, **more: object) -> int:
        """Start a row; its number. Stop ids default to one that is never drawn."""
        row = next(self._numbers)
        body = {"ids": ids, "max_tokens": max_tokens, "sampling": GREEDY if sampling is None else sampling}
        self.send(["generate", row, body | {"stop_ids": [(1 << 32) - 1], "top_logprobs": None} | more])
        return row

    def finish(self, row: int) -> Answer:
        """Wait for the end of a row."""
        self.wait(lambda: row in self.answers and self.answers[row].finish is not None)
        return self.answers[row]

    def run(self, ids: list[int], max_tokens: int = 16, sampling: object = None, **more: object) -> Answer:
        """Start a row and wait for its end."""
        return self.finish(self.start(ids, max_tokens, sampling, **more))

    def tokens_of(self, row: int, count: int) -> None:
        """Wait until a row has given `count` tokens or ended."""

        def reached() -> bool:
            answer = self.answers.get(row)
            return answer is not None and (len(answer.ids) >= count or answer.finish is not None)

        self.wait(reached)

    def wait(self, happened: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Wait for something to be heard."""
        with self._changed:
            done = self._changed.wait_for(lambda: happened() or self.closed, patience_s)
            if not done or not happened():
                raise TimeoutError(f"closed={self.closed} exit={self.process.poll()} log={self.log()[-2000:]}")

    def wait_closed(self) -> int:
        """Wait for the end of the process; its exit status."""
        return self.process.wait(PATIENCE_S)

    def log(self) -> str:
        """What the process wrote to its standard error."""
        return b"".join(list(self._log.queue)).decode(errors="replace")

    def close(self) -> None:
        """Hang up; checks the promises kept on the way."""
        self.socket.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self._folder.cleanup()
        assert not self.faults, self.faults

    # --- what comes back ---

    def _read(self) -> None:
        held = b""
        while True:
            self.listening.wait()
            try:
                data = self.socket.recv(1 << 16)
            except OSError:
                data = b""
            with self._changed:
                if not data:
                    self.closed = True
                    self._changed.notify_all()
                    return
                held = self._frames_in(held + data)
                self._changed.notify_all()

    def _frames_in(self, held: bytes) -> bytes:
        while len(held) >= 4:
            (length,) = struct.unpack_from("<I", held)
            if len(held) < 4 + length:
                break
            try:
                frame = cast(list[Any], _codec.unpackb(held[4 : 4 + length], strict_map_key=False))
            except ValueError:
                self.garbled += 1
            else:
                self._heard(frame)
            held = held[4 + length :]
        return held

    def _heard(self, frame: list[Any]) -> None:
        if (frame[0] == "hello") != (not self.frames):
            self.faults.append("hello is the first frame and comes once")
        self.frames.append(frame)
        match frame:
            case ["reply", call, value]:
                self.replies[call] = ["reply", value]
            case ["error", call, code, text]:
                self.errors.append([call, code, text])
                if call is not None:
                    self.replies[call] = ["error", code, text]
            case ["step", _, rows, _]:
                for row in rows:
                    self._row(*row)
            case _:
                pass

    def _row(self, row: int, ids: list[int], finish: str | None, extra: dict[str, Any] | None) -> None:
        answer = self.answers.setdefault(row, Answer())
        if answer.finish is not None:
            self.faults.append(f"row {row} was named after its end")
        answer.ids += ids
        answer.deltas += 1
        answer.finish = finish
        answer.logprobs += (extra or {}).get("logprobs", [])
        if finish is not None:
            answer.last = extra or {}

    def _drain_log(self) -> None:
        stream = self.process.stderr
        for line in iter(stream.readline, b"") if stream else ():
            self._log.put(line)


@contextmanager
def agent(module: str = "mlx_runtime", *arguments: str, env: dict[str, str] | None = None) -> Generator[Agent]:
    """A runtime process for the length of a block."""
    running = Agent(module, arguments, env)
    try:
        yield running
    finally:
        running.close()
