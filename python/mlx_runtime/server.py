"""The process around the step loop: the socket, its reader and writer threads, the parent's pipe, the end.

It owns how the process lives and dies; it refuses to look into frames. The runtime has no life of its own: end of
file on standard input or on the socket ends it at once, whatever the engine thread is doing, because only `os._exit`
does not wait for a GPU. An orderly end goes through the engine thread, which must be the one to free what MLX holds.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from mlx_runtime import PROTOCOL, VERSION
from mlx_runtime.backend import Backend
from mlx_runtime.batch import Row
from mlx_runtime.errors import Code
from mlx_runtime.framing import Decoder, Frame, Garbled
from mlx_runtime.inbox import Inbox
from mlx_runtime.loop import StepLoop
from mlx_runtime.outbox import Outbox
from mlx_runtime.protocol import (
    BadFrame,
    Cancel,
    Generate,
    Message,
    Refused,
    StepStats,
    error_frame,
    hello_frame,
    parse,
    step_frame,
)

# sysexits(3): EX_UNAVAILABLE, the socket is not there; EX_SOFTWARE, the imports failed.
EXIT_NO_SOCKET = 69
EXIT_BROKEN = 70

_FLUSH_S = 2.0
_READ_BYTES = 1 << 20

_log = logging.getLogger(__name__)

LoopMaker = Callable[[Backend, Inbox, Outbox], StepLoop]


def _real_loop(backend: Backend, inbox: Inbox, outbox: Outbox) -> StepLoop:
    return StepLoop(backend, inbox, outbox, time.monotonic)


def serve(path: str, backend: Backend, outbox: Outbox | None = None, make_loop: LoopMaker = _real_loop) -> NoReturn:
    """Connect to the agent and serve it until the end of the process. Never returns."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    # The agent ends us through the pipe; a signal to the whole group of a terminal must not outrun it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    _thread("parent", _watch_parent)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        _log.error("cannot connect to the agent's socket: %s", error)
        _exit(EXIT_NO_SOCKET)
    inbox, outbox = Inbox(), outbox or Outbox()
    facts: dict[str, object] = {"protocol": PROTOCOL, "pid": os.getpid(), "runtime": VERSION}
    outbox.post(hello_frame(facts | backend.versions()))
    loop = make_loop(backend, inbox, outbox)
    _thread("writer", lambda: _write(sock, outbox))
    _thread("reader", lambda: _read(sock, inbox, outbox))
    engine = _thread("engine", lambda: _end(loop.run(), outbox))
    try:
        backend.prepare()
    except Exception:  # noqa: BLE001 - a runtime without its libraries ends, whatever the reason
        _log.exception("the runtime's libraries cannot be imported")
        _exit(EXIT_BROKEN)
    engine.join()
    _exit(EXIT_BROKEN)


def _end(status: int, outbox: Outbox) -> None:
    outbox.wait_until_empty(_FLUSH_S)
    _exit(status)


def _watch_parent() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError as error:
        _log.warning("standard input cannot be read: %s", error)
    _exit(0)


def _read(sock: socket.socket, inbox: Inbox, outbox: Outbox) -> None:
    decoder = Decoder()
    while True:
        try:
            data = sock.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            _exit(0)
        for item in decoder.feed(data):
            _deliver(item, inbox, outbox)
            # An agent that asks without reading waits here; should it go away, the writer sees that.
            outbox.wait_for_room()


def _deliver(item: Frame | Garbled, inbox: Inbox, outbox: Outbox) -> None:
    if isinstance(item, Garbled):
        outbox.post(error_frame(None, Code.BAD_FRAME, item.text))
        return
    message = parse(item.value)
    if isinstance(message, BadFrame):
        outbox.post(error_frame(message.call, Code.BAD_FRAME, message.text))
    elif not inbox.offer(message, item.size):
        outbox.post(_turned_away(message))


def _turned_away(message: Message) -> bytes:
    text = "the engine has not caught up with earlier messages"
    match message:
        case Generate(row=row) | Refused(row=row):
            extra = Row(row, 0, 0).closing() | {"code": Code.BUSY.value, "text": text}
            return step_frame(0, [(row, [], "error", extra)], StepStats())
        case Cancel():
            return error_frame(None, Code.BUSY, text)
        case _:
            return error_frame(message.call, Code.BUSY, text)


def _write(sock: socket.socket, outbox: Outbox) -> None:
    while (data := outbox.take()) is not None:
        try:
            sock.sendall(data)
        except OSError:
            _exit(0)
        outbox.sent(len(data))


def _thread(name: str, run: Callable[[], None]) -> threading.Thread:
    def guarded() -> None:
        try:
            run()
        except BaseException:  # noqa: BLE001 - a thread that died silently would leave a process that only looks alive
            _log.exception("the %s thread failed", name)
            _exit(EXIT_BROKEN)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread


def _exit(status: int) -> NoReturn:
    # Nothing is flushed: the log writes through, and a full pipe must not keep a dead process alive.
    os._exit(status)
