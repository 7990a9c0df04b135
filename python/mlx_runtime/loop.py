"""The step loop: the one thread that owns the model. It takes messages, runs steps and posts frames.

It owns the order of things in a step and the end of every row; it refuses arithmetic on tensors (the backend's),
policy on rows (the batch's) and sockets (the server's). The clock is handed in.

A turn:
1. take every waiting message; cancels take effect here, between two steps
2. end all rows if the agent reads too slowly
3. admit rows, compute one budget of prompt tokens, move finished prompts into the decode batch
4. one decode step for all rows
5. post one step frame with everything the turn produced
6. give a sign of life if one is due
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from mlx_runtime.backend import Backend, Logprob, ModelFacts, Start
from mlx_runtime.batch import Batch, Chunk, Finish, Row, State
from mlx_runtime.errors import Code, DeviceLost, RuntimeFault, verdict
from mlx_runtime.inbox import Inbox
from mlx_runtime.limits import BATCH_ROWS_DEFAULT, PREFILL_CHUNK_DEFAULT, PROGRESS_S, SWEEP_STEPS, WAITING_ROWS_MAX
from mlx_runtime.outbox import Outbox
from mlx_runtime.prefix_cache import PrefixCache, Reuse
from mlx_runtime.protocol import (
    Cancel,
    Generate,
    Info,
    ListRows,
    Load,
    Message,
    Refused,
    Shutdown,
    StepRow,
    StepStats,
    Tokenize,
    Unload,
    error_frame,
    progress_frame,
    reply_frame,
    step_frame,
)
from mlx_runtime.tokenizing import TokenizeDesk

# sysexits(3): EX_SOFTWARE. The agent starts a new process.
EXIT_DEVICE_LOST = 70

_log = logging.getLogger(__name__)


class StepLoop:
    """Everything the engine thread does."""

    def __init__(
        self,
        backend: Backend,
        inbox: Inbox,
        outbox: Outbox,
        clock: Callable[[], float],
        idle_s: float = PROGRESS_S,
    ) -> None:
        self._backend = backend
        self._inbox = inbox
        self._outbox = outbox
        self._clock = clock
        self._idle_s = idle_s
        self._desk = TokenizeDesk(backend.tokenize, outbox)
        self._batch = Batch(BATCH_ROWS_DEFAULT, PREFILL_CHUNK_DEFAULT)
        self._prefixes = PrefixCache(0, Reuse.NONE, backend.keep)
        self._waiting: dict[int, Generate] = {}
        self._model: ModelFacts | None = None
        self._step = 0
        self._ended: list[StepRow] = []
        self._signed_at = clock()
        self._over = False

    def run(self) -> int:
        """Turn until the end; the exit status of the process."""
        try:
            self._sign("idle")
            while not self._over:
                self.turn()
        except DeviceLost as lost:
            # Nothing is freed: waiting for a dead stream would never end.
            _log.error("the device is lost: %s", lost)
            return EXIT_DEVICE_LOST
        self._backend.close()
        return 0

    def turn(self) -> None:
        """One turn, as numbered above."""
        busy = bool(self._batch.rows())
        for message in self._inbox.take(0.0 if busy else self._idle_s):  # 1.
            self.handle(message)
        if self._outbox.over and self._batch.rows():  # 2.
            self._end_all(Finish.ERROR, Code.SLOW_READER, "more than 4 MiB of frames wait to be read")
        stats, emitted = self._compute() if self._batch.rows() else (None, [])  # 3. 4.
        self._emit(emitted, stats)  # 5.
        if self._clock() - self._signed_at >= PROGRESS_S and not self._outbox.over:  # 6.
            self._sign("decode" if self._batch.decoding else "prefill" if self._batch.rows() else "idle")

    # --- messages ---

    def handle(self, message: Message) -> None:  # noqa: C901 - one arm for each verb, no branches inside
        """Do what a message asks, or queue it."""
        match message:
            case Generate():
                self._generate(message)
            case Refused(row, code, text):
                self._refuse(row, code, text)
            case Cancel(rows):
                self._end_rows([row for row in dict.fromkeys(rows) if self._batch.get(row)], Finish.CANCELLED)
            case Load():
                self._load(message)
            case Unload(call):
                self._unload(call)
            case Tokenize(call):
                if self._model is None:
                    self._outbox.post(error_frame(call, Code.NOT_LOADED, "no model is loaded"))
                else:
                    self._desk.ask(message)
            case ListRows(call):
                self._outbox.post(reply_frame(call, {"rows": [_listed(row) for row in self._batch.rows()]}))
            case Info(call):
                self._outbox.post(reply_frame(call, self._info()))
            case Shutdown(call):
                self._shut_down(call)

    def _load(self, spec: Load) -> None:
        if self._model is not None:
            self._outbox.post(error_frame(spec.call, Code.ALREADY_LOADED, "a model is loaded; unload it first"))
            return
        started = self._clock()
        self._sign("loading", 0.0)
        try:
            facts = self._backend.load(spec, self._loading)
        except Exception as error:  # noqa: BLE001 - whatever a broken folder makes the loader raise is this call's answer
            code = verdict(error)
            text = error.text if isinstance(error, RuntimeFault) else f"{type(error).__name__}: {error}"
            self._backend.unload()
            self._outbox.post(error_frame(spec.call, code, text))
            return
        self._model = replace(facts, load_s=self._clock() - started)
        self._batch = Batch(spec.max_rows, spec.prefill_chunk)
        self._prefixes = PrefixCache(spec.cache_bytes, self._backend.reuse(), self._backend.keep)
        self._outbox.post(reply_frame(spec.call, self._model.wire()))

    def _loading(self, fraction: float) -> None:
        if self._clock() - self._signed_at >= PROGRESS_S / 2 and not self._outbox.over:
            self._sign("loading", fraction)

    def _unload(self, call: int) -> None:
        if self._model is None:
            self._outbox.post(error_frame(call, Code.NOT_LOADED, "no model is loaded"))
            return
        self._drop_everything()
        self._model = None
        self._backend.unload()
        self._outbox.post(reply_frame(call, {"active_bytes": self._backend.memory().active_bytes}))

    def _shut_down(self, call: int) -> None:
        self._drop_everything()
        self._outbox.post(reply_frame(call, {}))
        self._over = True

    def _drop_everything(self) -> None:
        self._prefixes = PrefixCache(0, Reuse.NONE, self._backend.keep)
        self._end_all(Finish.CANCELLED)
        self._emit([], None)

    def _info(self) -> dict[str, object]:
        memory = self._backend.memory()
        facts: dict[str, object] = {
            "loaded": self._model is not None,
            "active_bytes": memory.active_bytes,
            "peak_bytes": memory.peak_bytes,
            "cache_bytes": memory.cache_bytes,
            "step": self._step,
            "running": self._batch.decoding + self._batch.prefilling,
            "queued": self._batch.queued,
            "prefix_cache": self._prefixes.facts(),
        }
        return facts if self._model is None else facts | {"model": self._model.wire()}

    # --- rows come and go ---

    def _generate(self, asked: Generate) -> None:
        model = self._model
        if self._batch.get(asked.row) is not None:
            self._outbox.post(error_frame(None, Code.DUPLICATE_ROW, f"row {asked.row} is running"))
            return
        if model is None:
            self._refuse(asked.row, Code.NOT_LOADED, "no model is loaded", asked.prompt_tokens)
            return
        fault = _unfit(asked, model)
        if fault is not None:
            self._refuse(asked.row, fault.code, fault.text, asked.prompt_tokens)
            return
        room = model.context_length - len(asked.ids)
        row = Row(
            row=asked.row,
            prompt_tokens=len(asked.ids),
            max_tokens=min(asked.max_tokens, room),
            stop_ids=asked.stop_ids or frozenset(model.eos_ids),
            arrived_at=self._clock(),
            replayed=asked.generated,
        )
        if self._batch.offer(row) is not None:
            self._refuse(asked.row, Code.BUSY, f"{WAITING_ROWS_MAX} rows wait already", asked.prompt_tokens)
            return
        self._waiting[asked.row] = asked
        row.cached = self._prefixes.offer(asked)
        if asked.prefill_chunk is not None:
            self._batch.prefill_chunk = asked.prefill_chunk

    def _refuse(self, row: int, code: Code, text: str, prompt_tokens: int = 0) -> None:
        if self._batch.get(row) is not None:
            self._outbox.post(error_frame(None, Code.DUPLICATE_ROW, f"row {row} is running"))
            return
        extra = self.closing_facts(Row(row, prompt_tokens, 0)) | {"code": code.value, "text": text}
        self._ended.append((row, [], Finish.ERROR.value, extra))

    def _end_all(self, finish: Finish, code: Code | None = None, text: str = "") -> None:
        self._end_rows([row.row for row in self._batch.rows()], finish, code, text)

    def _end_rows(self, rows: list[int], finish: Finish, code: Code | None = None, text: str = "") -> None:
        held: list[int] = []
        answering: list[int] = []
        for number in rows:
            row = self._batch.end(number)
            if row is None:
                continue
            if self._waiting.pop(number, None) is None:
                held.append(number)
            else:
                row.queued_s = self._clock() - row.arrived_at
            if row.state is State.DECODE and finish is Finish.CANCELLED:
                answering.append(number)
            else:
                self._prefixes.forget(number)
            extra = self.closing_facts(row) | ({} if code is None else {"code": code.value, "text": text})
            self._ended.append((number, [], finish.value, extra))
        if held:
            self._guarded(lambda: self._let_go(held, answering))

    def _let_go(self, rows: list[int], whole: list[int]) -> None:
        """Rows leave the backend; the sequences of `whole` ones are worth a place in the prefix cache."""
        for row in whole:
            self._prefixes.ended(row)
        self._backend.drop(rows)

    def closing_facts(self, row: Row) -> dict[str, object]:
        """What the last frame of a row tells about it."""
        return row.closing()

    def told(self, row: Row, token: int, finish: Finish | None, logprob: Logprob | None) -> StepRow:
        """What a step frame tells about a row that drew a token."""
        ids = [] if finish is Finish.STOP else [token]
        extra: dict[str, object] = {} if finish is None else self.closing_facts(row)
        if logprob is not None:
            extra["logprobs"] = [logprob] if ids else []
        return row.row, ids, None if finish is None else finish.value, extra or None

    # --- a step ---

    def _compute(self) -> tuple[StepStats | None, list[StepRow]]:
        self._step += 1
        emitted: list[StepRow] = []
        prefilled = self._prefill() if self._admit() and self._join() else None
        if prefilled is None or not self._join():
            return None, []
        width = self._batch.decoding
        started = self._clock()
        if width and not self._guarded(lambda: self._decode(emitted)):
            return None, emitted
        decode_s = self._clock() - started if width else 0.0
        if self._step % SWEEP_STEPS == 0 or not self._batch.rows():
            self._guarded(self._backend.sweep)
        return StepStats(*prefilled, decode_s, width, self._batch.kv_tokens), emitted

    def _admit(self) -> bool:
        starts = [self._begun(row) for row in self._batch.admit()]
        return not starts or self._guarded(lambda: self._backend.start(starts))

    def _begun(self, row: Row) -> Start:
        found = self._prefixes.begin(row.row)
        row.begin(found.cached, found.marks)
        row.queued_s = self._clock() - row.arrived_at
        return Start(self._waiting.pop(row.row), found.held, found.cached)

    def _prefill(self) -> tuple[float, int] | None:
        chunks = self._batch.plan()
        if not chunks:
            return 0.0, 0
        started = self._clock()
        if not self._guarded(lambda: self._backend.prefill(chunks)):
            return None
        seconds = self._clock() - started
        self._batch.advance(chunks, seconds)
        if not self._guarded(lambda: self._mark(chunks)):
            return None
        return seconds, sum(chunk.count for chunk in chunks)

    def _mark(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            row = self._batch.get(chunk.row)
            if row is not None and row.prompt_done in row.marks:
                self._prefixes.reached(row.row, row.prompt_done)

    def _join(self) -> bool:
        """Also before prefill: a prompt of one token has nothing to prefill, nor has one that is cached to its end."""
        ready = self._batch.promote()
        return not ready or self._guarded(lambda: self._promote(ready))

    def _promote(self, rows: list[int]) -> None:
        for row in rows:
            self._prefixes.prefilled(row)
        self._backend.promote(rows)

    def _decode(self, emitted: list[StepRow]) -> None:
        sampled = self._backend.decode()
        done: list[int] = []
        for number, token in zip(sampled.rows, sampled.tokens, strict=True):
            row = self._batch.get(number)
            if row is None:
                continue
            finish = self._batch.took(row, token)
            self._prefixes.took(number, token)
            emitted.append(self.told(row, token, finish, sampled.logprobs.get(number)))
            if finish is not None:
                self._batch.end(number)
                done.append(number)
        if done:
            self._let_go(done, done)

    def _guarded(self, act: Callable[[], object]) -> bool:
        """Run a call into the backend; if it raises, every row with a cache ends and the backend starts afresh."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - the model call may raise anything; the rows it held are lost
            code = verdict(error)
            _log.exception("the model call failed")
            self._fail_held(code, f"the model call failed: {type(error).__name__}")
            return False
        return True

    def _fail_held(self, code: Code, text: str) -> None:
        for row in self._batch.rows():
            if row.row in self._waiting:
                continue
            self._batch.end(row.row)
            extra = self.closing_facts(row) | {"code": code.value, "text": text}
            self._ended.append((row.row, [], Finish.ERROR.value, extra))
        self._prefixes.restart(self._waiting)
        self._backend.reset()

    def _emit(self, emitted: list[StepRow], stats: StepStats | None) -> None:
        rows = emitted + self._ended
        self._ended = []
        if rows or stats is not None:
            figures = stats or StepStats(kv_tokens=self._batch.kv_tokens)
            self._outbox.post(step_frame(self._step, rows, figures))

    def _sign(self, phase: str, fraction: float | None = None) -> None:
        self._signed_at = self._clock()
        running = self._batch.decoding + self._batch.prefilling
        self._outbox.post(progress_frame(self._step, phase, fraction, running, self._batch.queued))


def _unfit(asked: Generate, model: ModelFacts) -> RuntimeFault | None:
    if len(asked.ids) >= model.context_length:
        text = f"{len(asked.ids)} prompt tokens leave no room in a context of {model.context_length}"
        return RuntimeFault(Code.CONTEXT_LENGTH_EXCEEDED, text)
    if max(asked.ids) >= model.vocab_size:
        return RuntimeFault(Code.INVALID_REQUEST, f"ids holds an id outside the vocabulary of {model.vocab_size}")
    if any(one >= model.vocab_size for one, _ in asked.sampling.logit_bias):
        return RuntimeFault(
            Code.INVALID_REQUEST, f"logit_bias names an id outside the vocabulary of {model.vocab_size}"
        )
    return None


def _listed(row: Row) -> list[object]:
    return [row.row, row.state.value, row.prompt_done, row.prompt_tokens, row.generated]
