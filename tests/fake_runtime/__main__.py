"""`python -m fake_runtime --socket PATH [--t1-s 0.01 ...]`: one fake runtime process.

It owns the command line and the two knobs that change the loop rather than the computing: a narrower batch and a wrong
count. It refuses to be imported by anything.
"""

import sys
import time
from dataclasses import replace

from fake_runtime.backend import FakeBackend
from fake_runtime.knobs import Knobs, parse
from mlx_runtime.backend import Backend
from mlx_runtime.batch import Row
from mlx_runtime.inbox import Inbox
from mlx_runtime.loop import StepLoop
from mlx_runtime.outbox import Outbox
from mlx_runtime.protocol import Load, Message
from mlx_runtime.server import serve


class FakeLoop(StepLoop):
    """The real loop, told to lie where a knob says so."""

    def __init__(self, backend: Backend, inbox: Inbox, outbox: Outbox, knobs: Knobs) -> None:
        super().__init__(backend, inbox, outbox, time.monotonic)
        self._knobs = knobs

    def handle(self, message: Message) -> None:
        """Bounds the width of a loaded model."""
        if isinstance(message, Load) and self._knobs.max_rows:
            message = replace(message, max_rows=min(message.max_rows, self._knobs.max_rows))
        super().handle(message)

    def closing_facts(self, row: Row) -> dict[str, object]:
        """Counts wrongly if asked to."""
        return super().closing_facts(row) | {"generated": row.generated + self._knobs.wrong_count}


def main() -> None:
    """Serve until the end."""
    path, knobs = parse(sys.argv[1:])
    outbox = Outbox()

    def loop(backend: Backend, inbox: Inbox, to_agent: Outbox) -> FakeLoop:
        return FakeLoop(backend, inbox, to_agent, knobs)

    serve(path, FakeBackend(knobs, outbox), outbox, loop)


if __name__ == "__main__":
    main()
