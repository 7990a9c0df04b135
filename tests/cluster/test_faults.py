"""The decisions behind the fault proxy: they depend on the seed and on nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from cluster.faults import BLOCK_BYTES, Blocks, Dice, Fate, Faults, fate

DATA = bytes(range(256)) * 5
DICE = Dice(7, "link/udp/0/up")


def decided(faults: Faults, count: int = 400, dice: Dice = DICE) -> list[Fate]:
    return [fate(DATA, number, faults, dice, Counter()) for number in range(count)]


def through(faults: Faults, sizes: list[int], dice: Dice = DICE) -> tuple[bytes, list[tuple[int, float]], Counter[str]]:
    """What comes out of a stream that is read in pieces of these sizes; at which offset, with which delay."""
    counts: Counter[str] = Counter()
    blocks, out, delays = Blocks(dice, counts), b"", list[tuple[int, float]]()
    data = DATA * 20
    for size in sizes:
        for delay_s, piece in blocks.pieces(data[blocks.offset : blocks.offset + size], faults):
            delays.append((len(out), delay_s))
            out += piece
    return out, delays, counts


def test_without_faults_everything_passes_as_it_is_and_at_once() -> None:
    assert decided(Faults()) == [Fate([DATA])] * 400
    out, delays, counts = through(Faults(), [1_000, 1, 5_000])
    assert (out, {delay for _, delay in delays}, counts) == ((DATA * 20)[:6_001], {0.0}, Counter())


def test_the_same_seed_decides_the_same_and_another_otherwise() -> None:
    storm = Faults(loss=0.3, duplicate=0.2, shorten=0.2, flip=0.2, reorder=0.2, jitter_s=1.0)
    assert decided(storm) == decided(storm)
    assert decided(storm) != decided(storm, dice=Dice(8, DICE.flow))
    assert decided(storm) != decided(storm, dice=Dice(7, "another flow"))


def test_a_fault_that_is_switched_on_moves_no_other() -> None:
    def lost(faults: Faults) -> list[int]:
        return [number for number, one in enumerate(decided(faults)) if not one.copies]

    assert lost(Faults(loss=0.1)) == lost(Faults(loss=0.1, flip=0.5, duplicate=0.5, jitter_s=1.0))
    assert set(lost(Faults(loss=0.1))) < set(lost(Faults(loss=0.3)))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_a_share_is_what_it_says(share: float) -> None:
    lost = sum(not one.copies for one in decided(Faults(loss=share), 10_000))
    # Five standard deviations; the seed is fixed, so this is no coin toss.
    assert abs(lost - 10_000 * share) < 5 * (10_000 * share * (1 - share)) ** 0.5


def test_a_flipped_datagram_differs_in_one_bit_and_a_shortened_one_is_a_beginning() -> None:
    for one in decided(Faults(flip=1.0)):
        (copy,) = one.copies
        assert sum((a ^ b).bit_count() for a, b in zip(copy, DATA, strict=True)) == 1
    for one in decided(Faults(shorten=1.0)):
        (copy,) = one.copies
        assert len(copy) < len(DATA) and DATA.startswith(copy)


def test_a_stream_meets_the_same_fate_however_it_is_read() -> None:
    faults = Faults(flip=0.5, loss=0.5, resend_s=1.0, jitter_s=0.1)
    whole, delays, counts = through(faults, [20_480])
    for sizes in ([1] * 20_480, [640] * 32, [1_023, 1_025] * 10):
        out, others, again = through(faults, sizes)
        assert out[:20_480] == whole
        assert again == counts
        late = {offset // BLOCK_BYTES for offset, delay_s in others if delay_s >= 1.0}
        assert late == {offset // BLOCK_BYTES for offset, delay_s in delays if delay_s >= 1.0}
    assert 2 < counts["flipped"] < 18 and 2 < counts["late"] < 18
    assert sum((a ^ b).bit_count() for a, b in zip(whole, DATA * 16, strict=True)) == counts["flipped"]
