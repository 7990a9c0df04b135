"""`python -m fake_runtime --socket PATH [--file PATH] [--t1-s 0.01 ...]`: one fake runtime process.

It owns the command line and the knobs that change the loop and its frames rather than the computing. It refuses to be
imported by anything.
"""

import sys
import time
from dataclasses import replace

from fake_runtime.backend import FakeBackend
from fake_runtime.faults import marked
from fake_runtime.knobs import Switches, parse
from mlx_runtime.backend import Logprob
from mlx_runtime.batch import Finish, Row
from mlx_runtime.errors import Code
from mlx_runtime.inbox import Inbox
from mlx_runtime.loop import StepLoop
from mlx_runtime.outbox import Outbox
from mlx_runtime.protocol import Generate, Load, Message, Refused, StepRow, StepStats, step_frame
from mlx_runtime.server import serve


class FakeLoop(StepLoop):
    """The real loop, told to lie where a knob says so."""

    def __init__(self, backend: FakeBackend, inbox: Inbox, outbox: Outbox, switches: Switches) -> None:
        super().__init__(backend, inbox, outbox, time.monotonic)
        self._fake = backend
        self._switches = switches
        self._knobs = switches.now
        self._ghosts: list[StepRow] = []

    def turn(self) -> None:
        """Names ended rows once more if asked to."""
        super().turn()
        ghosts, self._ghosts = self._ghosts, []
        if ghosts:
            self._outbox.post(step_frame(self._step, ghosts, StepStats()))

    def handle(self, message: Message) -> None:
        """Bounds the width of a loaded model, and turns rows away if asked to."""
        knobs = self._knobs()
        if isinstance(message, Load) and knobs.max_rows:
            message = replace(message, max_rows=min(message.max_rows, knobs.max_rows))
        if isinstance(message, Generate) and knobs.refuse and marked(message, knobs):
            message = Refused(message.row, Code(knobs.refuse), "a fault was asked for")
        super().handle(message)

    def told(self, row: Row, token: int, finish: Finish | None, logprob: Logprob | None) -> StepRow:
        """Leaves a token out, sends it twice or keeps the end back if asked to."""
        knobs = self._knobs()
        if finish is not None and knobs.lose_end and self._fake.marked(row.row) and self._switches.strike():
            failed = self.closing_facts(row) | {"code": Code.INTERNAL.value, "text": "a fault was asked for"}
            self._ghosts.append((row.row, [], Finish.ERROR.value, failed))
            finish = None
        number, ids, end, extra = super().told(row, token, finish, logprob)
        if row.generated in (knobs.skip_at, knobs.repeat_at) and self._fake.marked(number):
            ids = [] if row.generated == knobs.skip_at else ids * 2
        return number, ids, end, extra

    def closing_facts(self, row: Row) -> dict[str, object]:
        """Counts wrongly if asked to."""
        knobs, facts = self._knobs(), super().closing_facts(row)
        if self._fake.marked(row.row):
            facts["generated"] = row.generated + knobs.wrong_count
            if knobs.ghosts:
                self._ghosts.append((row.row, [self._fake.word()], None, None))
        return facts


def main() -> None:
    """Serve until the end."""
    path, switches = parse(sys.argv[1:])
    outbox = Outbox()
    backend = FakeBackend(switches.now, outbox, strike=switches.strike)
    serve(path, backend, outbox, lambda _, inbox, to_agent: FakeLoop(backend, inbox, to_agent, switches))


if __name__ == "__main__":
    main()
