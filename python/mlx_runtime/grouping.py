"""Which rows share one dense KV cache, and when that changes. Pure.

A cache over several rows holds rows x the longest of them, so one long conversation beside seven short ones takes many
times what their tokens do. Apart they take less, but every further group reads the weights once more in each step. So
the rows stand in as few groups as the room allows: with room to spare, in one. Prefilling and decoding rows share the
room and never a group.

It owns that choice and when to make it anew; it refuses to know what a group is made of. The rules, each numbered where
it is applied:
1. While the groups fit, nothing moves, since to move a row is to copy it.
2. Groups that would not fit become the fewest that do, and of those the smallest, which can grow longest.
3. When rows came, left or took to decoding, fewer groups are made if that leaves every row a quantum to grow, or half
   of what can be left at all.
4. What fits in no way, because one answer is longer than the room or by the rounding of many, takes up to an eighth
   more than the least: nothing is refused here, and a group for each row would save little and cost much.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mlx_runtime.limits import KV_QUANTUM_TOKENS

UNBOUNDED: Final = 1 << 62
_NEVER: Final = 1 << 80


@dataclass(frozen=True, slots=True)
class Seat:
    """A row and the tokens its cache will hold after the next call."""

    row: int
    tokens: int
    decoding: bool


def size(groups: Iterable[tuple[int, int]]) -> int:
    """The tokens that groups of so many rows hold, the longest of so many tokens, as they are allocated."""
    return sum(rows * _width(longest) for rows, longest in groups)


def regrouped(groups: Sequence[Sequence[Seat]], room: int, changed: bool) -> list[list[int]] | None:
    """The rows of each group there should be; None if the groups shall stay as they are.

    `changed`: rows came, left or took to decoding since the last answer; those may stand among prefilling ones still.
    """
    seats = [seat for group in groups for seat in group]
    pools = [[seat for seat in seats if seat.decoding is stage] for stage in (True, False)]
    parts = [part for stage in (True, False) for group in groups if (part := [s for s in group if s.decoding is stage])]
    least = sum(_width(seat.tokens) for seat in seats)
    bound = room if least <= room else least + least // 8  # 4.
    wanted = parts
    if size((len(part), max(seat.tokens for seat in part)) for part in parts) > bound:
        wanted = _fewest(pools, bound)  # 2.
    elif changed:
        fewer = _fewest(pools, bound - min(KV_QUANTUM_TOKENS * len(seats), (bound - least) // 2))  # 3.
        wanted = fewer if len(fewer) < len(parts) else parts
    if wanted is parts and len(parts) == len(groups):  # 1.
        return None
    return [[seat.row for seat in group] for group in wanted]


def _width(tokens: int) -> int:
    return -(-tokens // KV_QUANTUM_TOKENS) * KV_QUANTUM_TOKENS


def _fewest(pools: Sequence[list[Seat]], bound: int) -> list[list[Seat]]:
    """The fewest groups of each pool's neighbours in length that are within the bound together.

    What another group saves becomes less with each (rows x longest is a Monge array), so the next one always goes where
    it saves most.
    """
    cuts = [_Cuts(pool) for pool in pools if pool]
    while sum(cut.size for cut in cuts) > bound:
        best = max(cuts, key=lambda cut: cut.saving)
        if best.saving == 0:
            break
        best.split()
    return [group for cut in cuts for group in cut.groups()]


@dataclass(slots=True)
class _Layer:
    """For so many groups: the least size of the first 0, 1, 2, ... widths, and where the last of the groups begins."""

    sizes: list[int]
    begins: list[int] = field(default_factory=list[int])


class _Cuts:
    """The best partitions of a pool into 1, 2, 3, ... groups, each found from the one before."""

    def __init__(self, seats: list[Seat]) -> None:
        by_width: dict[int, list[Seat]] = {}
        for seat in seats:
            by_width.setdefault(_width(seat.tokens), []).append(seat)
        self._widths = sorted(by_width)
        self._members = [by_width[width] for width in self._widths]
        self._upto = [0]
        for members in self._members:
            self._upto.append(self._upto[-1] + len(members))
        nothing = _Layer([0] + [_NEVER] * len(self._widths))
        self._layers = [self._after(nothing)]
        self._next = self._after(self._layers[-1])

    @property
    def size(self) -> int:
        """What the groups hold."""
        return self._layers[-1].sizes[-1]

    @property
    def saving(self) -> int:
        """How much less one group more would hold."""
        return max(0, self.size - self._next.sizes[-1])

    def split(self) -> None:
        """One group more."""
        self._layers.append(self._next)
        self._next = self._after(self._next)

    def groups(self) -> list[list[Seat]]:
        """The groups, the shortest rows first."""
        found: list[list[Seat]] = []
        end = len(self._widths)
        for layer in reversed(self._layers):
            begin = layer.begins[end]
            found.append([seat for members in self._members[begin:end] for seat in members])
            end = begin
        return found[::-1]

    def _after(self, layer: _Layer) -> _Layer:
        """With one group more, which goes from `begin` to `end`: the least of what is held up to `begin` plus the rows
        between times the width before `end`.

        As a function of that width each `begin` is a line, falling faster than the one before. The widths rise, so the
        lower hull of the lines is walked once.
        """
        sizes, upto = layer.sizes, self._upto
        out = _Layer([_NEVER], [0])
        hull: list[int] = []
        head = 0
        for end, width in enumerate(self._widths, start=1):
            if sizes[end - 1] < _NEVER:
                while len(hull) - head >= 2 and self._useless(sizes, hull[-2], hull[-1], end - 1):
                    hull.pop()
                hull.append(end - 1)
            heights = [sizes[begin] - upto[begin] * width for begin in hull[head : head + 2]]
            while len(heights) == 2 and heights[1] <= heights[0]:
                head += 1
                heights = [sizes[begin] - upto[begin] * width for begin in hull[head : head + 2]]
            out.sizes.append(heights[0] + upto[end] * width if heights else _NEVER)
            out.begins.append(hull[head] if heights else 0)
        return out

    def _useless(self, sizes: list[int], before: int, line: int, after: int) -> bool:
        """Whether `line` is nowhere below both of its neighbours."""
        upto = self._upto
        reach = (sizes[after] - sizes[before]) * (upto[line] - upto[before])
        return reach <= (sizes[line] - sizes[before]) * (upto[after] - upto[before])
