"""What the step loop needs of whoever computes: a model that loads, prefills and decodes rows by number.

All methods but `prepare`, `tokenize` and `versions` are called on the one engine thread. A backend refuses nothing
about requests: the loop has checked them. A method that raises has lost every row it holds, and `reset` follows.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol

from mlx_runtime.batch import Chunk
from mlx_runtime.prefix_cache import Kept, Reuse
from mlx_runtime.protocol import Generate, Load


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The reply to `load`. `kv_bytes_per_row` is what a row costs beyond its tokens: sliding windows, recurrent
    state."""

    model_type: str
    context_length: int
    parameters: int
    weights_bytes: int
    kv_bytes_per_token: int
    kv_bytes_per_row: int
    dtype: str
    vocab_size: int
    eos_ids: tuple[int, ...]
    load_s: float = 0.0

    def wire(self) -> dict[str, object]:
        """The map that goes into a frame."""
        facts: dict[str, object] = asdict(self)
        return facts | {"eos_ids": list(self.eos_ids)}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes held on the device: in use, the most so far, kept for reuse."""

    active_bytes: int = 0
    peak_bytes: int = 0
    cache_bytes: int = 0


Logprob = tuple[float, list[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class Sampled:
    """The next token of each decoding row, in the order of the batch; `logprobs` for the rows that asked."""

    rows: list[int] = field(default_factory=list[int])
    tokens: list[int] = field(default_factory=list[int])
    logprobs: dict[int, Logprob] = field(default_factory=dict[int, Logprob])


@dataclass(frozen=True, slots=True)
class Start:
    """A row that enters prefill; `held`, a copy `keep` made, has its first `cached` tokens."""

    asked: Generate
    held: object = None
    cached: int = 0


class Backend(Protocol):
    """A computer of rows."""

    def versions(self) -> dict[str, object]:
        """The versions and the device for `hello`."""
        ...

    def prepare(self) -> None:
        """Slow imports, on the main thread, after `hello`."""
        ...

    def load(self, spec: Load, progress: Callable[[float], None]) -> ModelFacts:
        """Load a model; calls `progress` with 0 to 1 many times. Raises `RuntimeFault`."""
        ...

    def unload(self) -> None:
        """Drop the model and its memory."""
        ...

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Ids of a text; called on another thread."""
        ...

    def reuse(self) -> Reuse:
        """What a kept KV cache of the loaded model can be used for."""
        ...

    def start(self, rows: list[Start]) -> None:
        """Rows enter prefill, with what is held of their beginning. Changes nothing of what is held."""
        ...

    def prefill(self, chunks: list[Chunk]) -> None:
        """Compute these prompt tokens; `chunks` names every prefilling row that has tokens left."""
        ...

    def promote(self, rows: list[int]) -> None:
        """Rows leave prefill and join the decode batch; all but their last prompt token is computed."""
        ...

    def decode(self) -> Sampled:
        """One decode step. A row may give its first token one step after it joined."""
        ...

    def keep(self, row: int, tokens: int, bytes_max: int) -> Kept | None:
        """A copy of the first `tokens` tokens of a row's KV cache that pins nothing else of the batch.

        None if it cannot be made or would take more than `bytes_max`. Returns at once: the copy is computed along with
        the next step.
        """
        ...

    def drop(self, rows: list[int]) -> None:
        """Forget rows wherever they are; unknown ones are ignored."""
        ...

    def reset(self) -> None:
        """Forget all rows and their caches; the model stays."""
        ...

    def memory(self) -> Memory:
        """Memory figures."""
        ...

    def sweep(self) -> None:
        """Return what is kept for reuse; called now and then."""
        ...

    def close(self) -> None:
        """The last act on the engine thread."""
        ...
