"""The rows of one model in groups, each with one dense KV cache: prefilling on one side, decoding on the other.

It owns the groups and carries out what `grouping` says of them; it refuses mlx-lm's insides, which are those of
`caches`. To whoever samples it is one batch: `rows` are in one order, whatever the groups.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import mlx.core as mx

from mlx_runtime.engine import caches
from mlx_runtime.engine.evaluation import evaluate
from mlx_runtime.grouping import UNBOUNDED, Seat, regrouped, size
from mlx_runtime.limits import KV_QUANTUM_TOKENS


@dataclass(slots=True)
class _Group:
    """Rows in one cache, and the tokens that each has in it."""

    rows: list[int]
    tokens: list[int]
    cache: list[Any]

    def keep(self, indices: list[int]) -> None:
        """Only these rows stay."""
        self.rows = [self.rows[index] for index in indices]
        self.tokens = [self.tokens[index] for index in indices]
        if not indices:
            self.cache = []
        for cache in self.cache:
            cache.filter(indices)

    def read(self, model: Any, tokens: dict[int, list[int]]) -> None:
        """The next tokens of the prompts."""
        caches.read(model, self.cache, [tokens[row] for row in self.rows])
        self.tokens = [held + len(tokens[row]) for row, held in zip(self.rows, self.tokens, strict=True)]
        if caches.unused(self.cache, max(self.tokens)) >= KV_QUANTUM_TOKENS:
            self.keep(list(range(len(self.rows))))

    def feed(self, model: Any, tokens: mx.array) -> mx.array:
        """One token for each row; the logits of the next."""
        logits = cast(mx.array, model(tokens[:, None], cache=self.cache))
        self.tokens = [held + 1 for held in self.tokens]
        return logits[:, -1, :]


@dataclass(slots=True)
class _Lanes:
    """Which of the decoding rows each group is, and where its logits go. None: all of them, in their order."""

    groups: list[_Group] = field(default_factory=list[_Group])
    out: list[mx.array] | None = None
    back: mx.array | None = None


class KvBatch:
    """The rows of one model; their dense caches hold `room` tokens together, as far as that can be.

    `release` is called before rows are copied in a room that is tight: whatever else holds on to their caches lets go.
    """

    def __init__(self, model: Any, room: int | None = None, release: Callable[[], None] = lambda: None) -> None:
        self._model = model
        self._room = UNBOUNDED if room is None else room
        self._release = release
        self._groups: list[_Group] = []
        self._rows: list[int] = []
        self._decoding: set[int] = set()
        self._changed = False
        self._lanes = _Lanes()

    @property
    def rows(self) -> list[int]:
        """The decoding rows, in the order in which they are fed and drawn."""
        return self._rows

    @property
    def groups(self) -> list[list[int]]:
        """The rows of each group."""
        return [list(group.rows) for group in self._groups]

    def held(self) -> list[Any]:
        """All caches there are."""
        return [cache for group in self._groups for cache in group.cache]

    def start(self, rows: dict[int, list[Any] | None]) -> None:
        """Rows enter prefill, each with a cache or without; they find their group when they are computed."""
        alike: dict[int, dict[int, list[Any]]] = {}
        for row, given in rows.items():
            tokens = 0 if given is None else max(int(cache.offset) for cache in given)
            alike.setdefault(tokens, {})[row] = caches.make_caches(self._model) if given is None else given
        for tokens, given in alike.items():
            self._groups.append(_Group(list(given), [tokens] * len(given), caches.merged(list(given.values()))))
        self._changed = True

    def take(self, row: int, tokens: int) -> list[Any] | None:
        """A copy of the cache of a row's first tokens, not yet computed; once it is, it pins nothing else.

        None if the cache cannot tell exactly these tokens: fewer are there, or a window has slid past them.
        """
        group = next(group for group in self._groups if row in group.rows)
        taken = caches.taken(group.cache, group.rows.index(row), tokens)
        return taken if all(cache.offset == tokens for cache in taken) else None

    def prefill(self, tokens: dict[int, list[int]]) -> None:
        """Compute the next tokens of every prefilling row, and wait for the result."""
        self._fit({row: len(part) for row, part in tokens.items()})
        for group in self._of(decoding=False):
            group.read(self._model, tokens)

    def promote(self, rows: Iterable[int]) -> None:
        """Move rows from prefill behind the decoding rows, in the order they have there."""
        moving = set(rows)
        self._rows = self._rows + [row for group in self._groups for row in group.rows if row in moving]
        self._decoding |= moving
        self._changed = True

    def drop(self, rows: set[int]) -> list[int]:
        """Forget rows. The indices of the decoding rows that stay."""
        for group in self._groups:
            stay = [index for index, row in enumerate(group.rows) if row not in rows]
            if len(stay) < len(group.rows):
                group.keep(stay)
                self._changed = True
        self._groups = [group for group in self._groups if group.rows]
        keep = [index for index, row in enumerate(self._rows) if row not in rows]
        self._rows = [self._rows[index] for index in keep]
        self._decoding -= rows
        return keep

    def forward(self, tokens: mx.array) -> mx.array:
        """Feed one token to each decoding row; the logits of the next, [rows, vocabulary], not yet computed."""
        self._fit({})
        lanes = self._lanes
        if lanes.out is None:
            return lanes.groups[0].feed(self._model, tokens)
        fed = zip(lanes.groups, lanes.out, strict=True)
        return mx.concatenate([group.feed(self._model, tokens[out]) for group, out in fed])[lanes.back]

    def settle(self) -> None:
        """Evaluate what the caches keep lazily, so that no chain of bookkeeping grows with the age of the batch."""
        evaluate([cache.state for group in self._of(decoding=True) for cache in group.cache])

    def _of(self, decoding: bool) -> list[_Group]:
        return [group for group in self._groups if (group.rows[0] in self._decoding) is decoding]

    def _fit(self, reading: Mapping[int, int]) -> None:
        """See to it that what comes has room: so many tokens for each prefilling row, one for each decoding one."""
        if not self._changed and self._held(reading) <= self._room:
            return
        seats = [
            [
                Seat(row, held + self._more([row], reading), row in self._decoding)
                for row, held in zip(group.rows, group.tokens, strict=True)
            ]
            for group in self._groups
        ]
        wanted = regrouped(seats, self._room, self._changed)
        if wanted is not None:
            self._move(wanted, tight=2 * size((len(g.rows), max(g.tokens)) for g in self._groups) > self._room)
        if wanted is not None or self._changed:
            self._lay()
        self._changed = False

    def _held(self, reading: Mapping[int, int]) -> int:
        if self._room == UNBOUNDED:
            return 0
        # Of a prefilling group the longest row with the most to read: never too little, and nearly what it is.
        return size((len(g.rows), max(g.tokens) + self._more(g.rows, reading)) for g in self._groups)

    def _more(self, rows: list[int], reading: Mapping[int, int]) -> int:
        return 1 if rows[0] in self._decoding else max(reading.get(row, 0) for row in rows)

    def _move(self, wanted: list[list[int]], tight: bool) -> None:
        """Make other groups of the rows, layer by layer: where it is tight, no more than one layer is there twice."""
        if tight:
            self._release()
        old = self._groups
        place = {row: (number, index) for number, group in enumerate(old) for index, row in enumerate(group.rows)}
        sources: list[dict[int, list[int]]] = []
        for rows in wanted:
            source: dict[int, list[int]] = {}
            for number, index in sorted(place[row] for row in rows):
                source.setdefault(number, []).append(index)
            sources.append(source)
        self._groups = [_drawn(old, source) for source in sources]
        for layer in range(len(old[0].cache)):
            for group, source in zip(self._groups, sources, strict=True):
                parts = [
                    old[number].cache[layer]
                    if len(indices) == len(old[number].rows)
                    else caches.parted(old[number].cache[layer], indices)
                    for number, indices in source.items()
                ]
                group.cache.append(caches.joined(parts))
            if tight:
                evaluate([group.cache[layer].state for group in self._groups])
                for group in old:
                    group.cache[layer] = None
        if tight:
            mx.clear_cache()

    def _lay(self) -> None:
        groups = self._of(decoding=True)
        order = [row for group in groups for row in group.rows]
        if len(groups) <= 1 and order == self._rows:
            self._lanes = _Lanes(groups)
            return
        index = {row: number for number, row in enumerate(self._rows)}
        at = {row: number for number, row in enumerate(order)}
        out = [mx.array([index[row] for row in group.rows]) for group in groups]
        self._lanes = _Lanes(groups, out, mx.array([at[row] for row in self._rows]))


def _drawn(old: list[_Group], source: dict[int, list[int]]) -> _Group:
    """The rows of a new group, without their cache."""
    rows = [old[number].rows[index] for number, indices in source.items() for index in indices]
    tokens = [old[number].tokens[index] for number, indices in source.items() for index in indices]
    return _Group(rows, tokens, [])
