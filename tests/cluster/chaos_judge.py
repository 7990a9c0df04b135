"""What a campaign must not have seen: the facts at its end, and the verdict on them.

Owns which ends of a request have a reason: that its gateway was not there, that its time was over, that it met what may
cut it. Refuses to excuse what the service did by itself: whoever ended without a fault that ends it is wrong, and so is
a refusal by a gateway that had no reason to refuse.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from cluster.chaos_scene import FAULTS
from cluster.witness import DEADLINE_S, Record, Verdict, violations

# An election takes two seconds at most, on a machine that has time.
STALL_S = 4.0
# Of rounds that take longer than these to come about, some may miss what they aim at.
MISSED_SHARE = 0.1
# How long after a fault a service may have too little of something, such as a model that is loaded.
SCARCE_S = 15.0
# How long after its start a gateway may not listen yet, on a machine that does much else.
STARTS_S = 10.0
# These cut an answer wherever it goes. Of others it takes two: whoever was present at two deaths gets no third node,
# guilty or not.
CUTTING_EVERYWHERE = frozenset(
    {
        "kill -9 all agents",
        "rolling restart of agents",
        "partial partition",
        "all agents partitioned",
        "full disk",
        "full disk of the leader",
    }
)


@dataclass(frozen=True, slots=True)
class Struck:
    """What happened and when, by the witness's clock."""

    fault: str
    agent: str
    from_s: float
    to_s: float


class Absence(IntEnum):
    """How a gateway was not there, the best excuse first."""

    DIED = 0  # it is another process now
    HARMED = 1  # it was stopped or cut off
    DRAINED = 2  # it was told to end: what ran there was to end well


@dataclass(frozen=True, slots=True)
class Gap:
    """When a gateway was not there, or not for everybody."""

    gateway: str
    from_s: float
    to_s: float
    how: Absence = Absence.DIED


@dataclass(slots=True)
class Outcome:
    """The facts at the end of a campaign."""

    struck: list[Struck] = field(default_factory=list[Struck])
    # Faults that did not come about, and why.
    missed: list[str] = field(default_factory=list[str])
    gaps: list[Gap] = field(default_factory=list[Gap])
    records: list[Record] = field(default_factory=list[Record])
    full_service_s: float = 0.0
    at_rest_s: float = 0.0
    agreed_s: float = 0.0
    ended_by_itself: list[str] = field(default_factory=list[str])
    # The same, where no fault does that.
    unexcused: list[str] = field(default_factory=list[str])
    with_canary: list[str] = field(default_factory=list[str])
    # What should have come true in the end.
    never: list[str] = field(default_factory=list[str])
    proxied: Counter[str] = field(default_factory=Counter[str])


def gap_of(record: Record, outcome: Outcome) -> Gap | None:
    """The best excuse of its own gateway while it was under way."""
    gaps = [gap for gap in outcome.gaps if gap.gateway == record.gateway]
    met = [gap for gap in gaps if _meet((record.sent_s, record.ended_s), (gap.from_s, gap.to_s + _starts(record, gap)))]
    return min(met, key=lambda gap: gap.how, default=None)


def _starts(record: Record, gap: Gap) -> float:
    return STARTS_S if record.code == "unreachable" and gap.how is not Absence.HARMED else 0.0


def may_end_so(record: Record, outcome: Outcome) -> bool:
    """Whether an answer had reason enough to break or to be refused: its gateway was not there, its time was over, it
    was cut twice, or what it needs was scarce just then.

    What waited in line may have met faults that did not touch it: where the line is long, this is too kind.
    """
    gap = gap_of(record, outcome)
    # A connection that was waiting to be accepted is reset by whoever stops listening.
    unheard = record.verdict is Verdict.REFUSED or not record.service_id
    if gap is not None and (gap.how is not Absence.DRAINED or unheard):
        return True
    lived = (record.sent_s, record.ended_s)
    met = [one.fault for one in outcome.struck if _meet(lived, (one.from_s, one.to_s))]
    match record.code:
        case "deadline_exceeded":
            return record.ended_s - record.sent_s > DEADLINE_S - 1
        case "stream_lost" | "node_lost" | "request_quarantined":
            return len(met) > 1 or bool(CUTTING_EVERYWHERE & set(met))
        case "queue_full" | "model_loading":
            scarce = any(_meet(lived, (one.from_s, one.to_s + SCARCE_S)) for one in outcome.struck)
            return record.verdict is Verdict.REFUSED and scarce
        case _:  # a gateway that lives says why, and lets everybody in
            return False


def stalls(outcome: Outcome) -> list[str]:
    """Faults that leave a group with all it needs, under which nothing began for longer than an election takes.

    By the clients of gateways that were there; where nobody asked, nothing is said. To be refused is not to begin.
    """
    found: list[str] = []
    asked = [record for record in outcome.records if not gap_of(record, outcome)]
    for one in outcome.struck:
        if FAULTS[one.fault].flows:
            begun = sorted(r.first_s for r in asked if r.first_s and one.from_s <= r.first_s <= one.to_s)
            for since, until_s in itertools.pairwise([one.from_s, *begun, one.to_s]):
                early = [r for r in asked if r.sent_s < until_s - 2]
                waited = [r for r in early if (r.first_s or r.ended_s) >= until_s]
                waited += [r for r in early if since <= r.sent_s and r.verdict is Verdict.REFUSED and r not in waited]
                if until_s - since > STALL_S and len(waited) >= 3:
                    found.append(f"nothing began from {since:.1f} to {until_s:.1f} s: {one.fault}")
    return found


def wrongs(outcome: Outcome) -> list[str]:
    """Everything that must not have happened, in words."""
    excusable = {Verdict.BROKEN, Verdict.REFUSED}
    found = violations(outcome.records, frozenset({Verdict.WHOLE, Verdict.LEFT}))
    bad = [
        one
        for one in found
        if one.verdict not in excusable or "without a code" in one.code or not may_end_so(one, outcome)
    ]
    missed = outcome.missed if len(outcome.missed) > 1 + MISSED_SHARE * len(outcome.struck) else []
    return [
        *map(str, bad),
        *(f"a prompt is in {path}" for path in outcome.with_canary),
        *(f"ended by itself: {who}" for who in outcome.unexcused),
        *stalls(outcome),
        *(f"never came true: {what}" for what in outcome.never),
        *(f"did not strike: {what}" for what in missed),
    ]


def table(outcome: Outcome) -> str:
    """For each fault how often it struck, and the verdicts of the requests that were under way meanwhile."""
    return table_of([outcome])


def table_of(outcomes: Sequence[Outcome]) -> str:
    """The same, of several rooms together."""
    lines = [f"{'fault':46}{'times':>6}" + "".join(f"{verdict:>10}" for verdict in Verdict)]
    for name in FAULTS:
        times, meanwhile = 0, list[Record]()
        for outcome in outcomes:
            spans = [(one.from_s, one.to_s) for one in outcome.struck if one.fault == name]
            times += len(spans)
            meanwhile += [r for r in outcome.records if any(_meet((r.sent_s, r.ended_s), span) for span in spans)]
        if times:
            lines.append(_line(name, times, meanwhile))
    struck = sum(len(outcome.struck) for outcome in outcomes)
    lines.append(_line("in all", struck, [record for outcome in outcomes for record in outcome.records]))
    return "\n".join(lines)


def _line(name: str, times: int, records: Iterable[Record]) -> str:
    counts = Counter(record.verdict for record in records)
    return f"{name:46}{times:>6}" + "".join(f"{counts[verdict] or '':>10}" for verdict in Verdict)


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def report(outcome: Outcome) -> str:
    """All of it, for a person."""
    lines = [
        table(outcome),
        *(_codes(outcome, verdict) for verdict in (Verdict.REFUSED, Verdict.BROKEN)),
        f"proxy:   {dict(sorted(outcome.proxied.items()))}",
        f"full service after {outcome.full_service_s:.1f} s, at rest after {outcome.at_rest_s:.1f} s, "
        f"agreed after {outcome.agreed_s:.1f} s",
        *(f"did not strike: {what}" for what in outcome.missed),
        *(f"ended by itself: {who}" for who in outcome.ended_by_itself),
        *(f"WRONG: {what}" for what in wrongs(outcome)),
    ]
    return "\n".join(lines)


def _codes(outcome: Outcome, verdict: Verdict) -> str:
    """How often each code was told: by gateways that were away, were stopped, cut off or told to end, or were there."""
    told = {how: Counter[str]() for how in (*Absence, None)}
    for record in outcome.records:
        if record.verdict is verdict:
            gap = gap_of(record, outcome)
            told[None if gap is None else gap.how][record.code] += 1
    words = {Absence.DIED: "away", Absence.HARMED: "stopped or cut off", Absence.DRAINED: "draining", None: "there"}
    return f"{verdict}, by gateways that were " + "; ".join(
        f"{words[how]}: {dict(codes)}" for how, codes in told.items()
    )
