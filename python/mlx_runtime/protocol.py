"""The shapes of the frames: what an agent may ask, and the frames that answer.

It owns the check of every value that comes from outside. A frame of the wrong shape is a `BadFrame`; a `generate`
whose row can be read but whose parameters cannot be used becomes a `Refused` row, so that the agent always hears the
row's end. It refuses to know models: the vocabulary and the context length are checked where they are known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from mlx_runtime import limits
from mlx_runtime.errors import Code
from mlx_runtime.framing import encode


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; the defaults change nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Load the model folder at `path`. Its rows' KV caches hold `kv_tokens` as far as that can be; None: any number."""

    call: int
    path: str
    prefill_chunk: int
    max_rows: int
    cache_bytes: int = limits.PREFIX_CACHE_BYTES_DEFAULT
    kv_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Unload:
    """Drop the model."""

    call: int


@dataclass(frozen=True, slots=True)
class Generate:
    """Start a sequence. Without a `cache_salt` it neither reads nor writes the prefix cache; a `prefill_chunk` is the
    runtime's from now on.

    The last `generated` of the ids are the beginning of the answer, which another row gave: this one goes on behind it.
    """

    row: int
    ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: frozenset[int] = frozenset()
    top_logprobs: int | None = None
    cache_salt: str | None = None
    prefill_chunk: int | None = None
    generated: int = 0

    @property
    def prompt_tokens(self) -> int:
        """How many of the ids the client sent."""
        return len(self.ids) - self.generated

    @property
    def replayed(self) -> tuple[int, ...]:
        """The ids that are the beginning of the answer."""
        return self.ids[self.prompt_tokens :]


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot start; its end is sent in a step frame."""

    row: int
    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End these rows."""

    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Ids of a text."""

    call: int
    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class ListRows:
    """What is queued and running."""

    call: int


@dataclass(frozen=True, slots=True)
class Info:
    """Model and memory facts."""

    call: int


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Answer, then end."""

    call: int


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A frame that says nothing usable; `call` if at least that could be read."""

    call: int | None
    text: str


Message = Load | Unload | Generate | Refused | Cancel | Tokenize | ListRows | Info | Shutdown


class _Unusable(Exception):
    """A field that does not fit; the text names it."""


_PLAIN: Final[dict[str, type[Unload] | type[ListRows] | type[Info] | type[Shutdown]]] = {
    "unload": Unload,
    "list": ListRows,
    "info": Info,
    "shutdown": Shutdown,
}


def parse(value: object) -> Message | BadFrame:
    """The message a decoded frame holds. Total: any value gives an answer."""
    if not isinstance(value, list) or not value:
        return BadFrame(None, "a frame is an array whose first element is the verb")
    parts = cast(list[object], value)
    verb, rest = parts[0], parts[1:]
    call = rest[0] if rest and _is_u64(rest[0]) and verb not in ("generate", "cancel") else None
    try:
        return _message(verb, rest)
    except _Unusable as error:
        return BadFrame(cast(int | None, call), str(error))


def _message(verb: object, rest: list[object]) -> Message:
    match verb:
        case "load":
            _count(verb, rest, 2)
            return _load(_u64("call", rest[0]), _map("load", rest[1]))
        case "unload" | "list" | "info" | "shutdown":
            _count(verb, rest, 1)
            return _PLAIN[str(verb)](_u64("call", rest[0]))
        case "generate":
            _count(verb, rest, 2)
            return _generate(_u64("row", rest[0]), _map("generate", rest[1]))
        case "cancel":
            _count(verb, rest, 1)
            return Cancel(tuple(_u64("row", row) for row in _list("rows", rest[0])))
        case "tokenize":
            _count(verb, rest, 3)
            return _tokenize(rest)
        case _:
            raise _Unusable("unknown verb")


def _load(call: int, body: dict[object, object]) -> Load:
    path = body.get("path")
    if not isinstance(path, str) or not path or "\0" in path:
        raise _Unusable("load: path is a non-empty string")
    bytes_max = _ranged(body, "cache_bytes", 0, limits.PREFIX_CACHE_BYTES_MAX)
    return Load(
        call,
        path,
        prefill_chunk=_ranged(body, "prefill_chunk", 1, limits.PREFILL_CHUNK_MAX) or limits.PREFILL_CHUNK_DEFAULT,
        max_rows=_ranged(body, "max_rows", 1, limits.BATCH_ROWS_MAX) or limits.BATCH_ROWS_DEFAULT,
        cache_bytes=limits.PREFIX_CACHE_BYTES_DEFAULT if bytes_max is None else bytes_max,
        kv_tokens=_ranged(body, "kv_tokens", 1, limits.KV_TOKENS_MAX),
    )


def _ranged(body: dict[object, object], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is not None and (not _is_int(value) or not least <= cast(int, value) <= most):
        raise _Unusable(f"{name} is nil or an integer from {least} to {most}")
    return cast(int | None, value)


def _tokenize(rest: list[object]) -> Tokenize:
    text, special = rest[1], rest[2]
    if not isinstance(text, str) or not isinstance(special, bool):
        raise _Unusable("tokenize: text is a string and special a boolean")
    return Tokenize(_u64("call", rest[0]), text, special)


def _generate(row: int, body: dict[object, object]) -> Generate | Refused:
    try:
        max_tokens = body.get("max_tokens")
        if not _is_int(max_tokens) or not 1 <= cast(int, max_tokens) <= limits.MAX_TOKENS_MAX:
            raise _Unusable(f"max_tokens is an integer from 1 to {limits.MAX_TOKENS_MAX}")
        ids = _ids("ids", body.get("ids"))
        if not ids:
            raise _Unusable("ids holds at least one token id")
        stop_ids = _ids("stop_ids", body.get("stop_ids") or [])
        if len(stop_ids) > limits.STOP_IDS_MAX:
            raise _Unusable(f"stop_ids holds at most {limits.STOP_IDS_MAX} ids")
        return Generate(
            row=row,
            ids=ids,
            max_tokens=cast(int, max_tokens),
            sampling=_sampling(body.get("sampling")),
            stop_ids=frozenset(stop_ids),
            top_logprobs=_ranged(body, "top_logprobs", 0, limits.TOP_LOGPROBS_MAX),
            cache_salt=_salt(body.get("cache_salt")),
            prefill_chunk=_ranged(body, "prefill_chunk", 1, limits.PREFILL_CHUNK_TUNED_MAX),
            generated=_ranged(body, "generated", 0, len(ids) - 1) or 0,
        )
    except _Unusable as error:
        return Refused(row, Code.INVALID_REQUEST, str(error))


def _salt(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value.encode(errors="surrogatepass")) > limits.CACHE_SALT_BYTES_MAX:
        raise _Unusable(f"cache_salt is nil or a string of at most {limits.CACHE_SALT_BYTES_MAX} bytes")
    return value


def _sampling(value: object) -> Sampling:
    body = {} if value is None else _map("sampling", value)
    penalty = limits.PENALTY_ABS_MAX
    top_k = body.get("top_k", 0)
    if not _is_u64(top_k):
        raise _Unusable("top_k is an integer from 0")
    seed = body.get("seed")
    if seed is not None and not _is_u64(seed):
        raise _Unusable("seed is nil or an unsigned 64-bit integer")
    repetition = _number(body, "repetition_penalty", 1.0, 0.0, penalty)
    if repetition == 0.0:
        raise _Unusable("repetition_penalty is over 0")
    return Sampling(
        temperature=_number(body, "temperature", 1.0, 0.0, limits.TEMPERATURE_MAX),
        top_p=_number(body, "top_p", 1.0, 0.0, 1.0),
        top_k=cast(int, top_k),
        min_p=_number(body, "min_p", 0.0, 0.0, 1.0),
        repetition_penalty=repetition,
        presence_penalty=_number(body, "presence_penalty", 0.0, -penalty, penalty),
        frequency_penalty=_number(body, "frequency_penalty", 0.0, -penalty, penalty),
        logit_bias=_bias(body.get("logit_bias")),
        seed=cast(int | None, seed),
    )


def _bias(value: object) -> tuple[tuple[int, float], ...]:
    if value is None:
        return ()
    pairs = _list("logit_bias", value)
    if len(pairs) > limits.LOGIT_BIAS_MAX:
        raise _Unusable(f"logit_bias holds at most {limits.LOGIT_BIAS_MAX} pairs")
    most = limits.LOGIT_BIAS_ABS_MAX
    out: list[tuple[int, float]] = []
    for entry in pairs:
        pair = _list("logit_bias", entry)
        if len(pair) != 2 or not _is_u64(pair[0]) or not _is_number(pair[1], -most, most):
            raise _Unusable("logit_bias is a list of [id, finite bias]")
        out.append((cast(int, pair[0]), float(cast(float, pair[1]))))
    return tuple(out)


def _number(body: dict[object, object], name: str, default: float, least: float, most: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if not _is_number(value, least, most):
        raise _Unusable(f"{name} is a number from {least:g} to {most:g}")
    return float(cast(float, value))


def _ids(name: str, value: object) -> tuple[int, ...]:
    ids = _list(name, value)
    # bool is an int in Python, and a prompt may hold a million ids: `type` is exact and quick.
    if not all(type(one) is int for one in ids) or (ids and min(cast(list[int], ids)) < 0):
        raise _Unusable(f"{name} is a list of token ids")
    return tuple(cast(list[int], ids))


def _count(verb: object, rest: list[object], wanted: int) -> None:
    if len(rest) != wanted:
        raise _Unusable(f"{verb} takes {wanted} elements after the verb, not {len(rest)}")


def _u64(name: str, value: object) -> int:
    if not _is_u64(value):
        raise _Unusable(f"{name} is an unsigned 64-bit integer")
    return cast(int, value)


def _map(name: str, value: object) -> dict[object, object]:
    if not isinstance(value, dict):
        raise _Unusable(f"{name} takes a map")
    return cast(dict[object, object], value)


def _list(name: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise _Unusable(f"{name} is a list")
    return cast(list[object], value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_u64(value: object) -> bool:
    return _is_int(value) and 0 <= cast(int, value) <= limits.U64_MAX


def _is_number(value: object, least: float, most: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and least <= value <= most


# --- frames to the agent ---

StepRow = tuple[int, list[int], str | None, dict[str, object] | None]


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step cost."""

    prefill_s: float = 0.0
    prefill_tokens: int = 0
    decode_s: float = 0.0
    batch: int = 0
    kv_tokens: int = 0


def hello_frame(facts: dict[str, object]) -> bytes:
    """The first frame."""
    return encode(["hello", facts])


def reply_frame(call: int, value: dict[str, object]) -> bytes:
    """An answer."""
    return encode(["reply", call, value])


def error_frame(call: int | None, code: Code, text: str) -> bytes:
    """A failed question."""
    return encode(["error", call, code.value, text])


def progress_frame(step: int, phase: str, fraction: float | None, running: int, queued: int) -> bytes:
    """Proof of life."""
    body = {"step": step, "phase": phase, "fraction": fraction, "running": running, "queued": queued}
    return encode(["progress", body])


def step_frame(step: int, rows: Sequence[StepRow], stats: StepStats) -> bytes:
    """What one step produced."""
    figures = [stats.prefill_s, stats.prefill_tokens, stats.decode_s, stats.batch, stats.kv_tokens]
    return encode(["step", step, rows, figures])
