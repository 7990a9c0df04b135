"""The pure index of prefixes: examples, and laws against a model that knows every entry by its tokens."""

from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_runtime.limits import PREFIX_BLOCK_TOKENS as BLOCK
from mlx_runtime.prefix_index import Chain, PrefixIndex


def blocks_of(letters: str, salt: str = "s") -> list[bytes]:
    """The digests of a sequence with one block for each letter."""
    return Chain(salt, [ord(letter) for letter in letters for _ in range(BLOCK)]).blocks


def index_of(*letters: str, size_max: int = 100, cuts: bool = True) -> PrefixIndex:
    """An index with these sequences, each as large as it is long, holding its own letters."""
    index = PrefixIndex(size_max, cuts)
    for one in letters:
        index.put(blocks_of(one), one, len(one))
    return index


@given(st.lists(st.integers(0, 2**64 - 1), max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_a_chain_does_not_depend_on_how_it_grew(ids: list[int], cuts: list[int]) -> None:
    grown = Chain("s")
    at = 0
    for cut in sorted([*cuts, len(ids)]):
        grown.extend(ids[at:cut])
        at = max(at, cut)
    assert (grown.blocks, grown.tokens) == (Chain("s", ids).blocks, len(ids))
    assert len(grown.blocks) == len(ids) // BLOCK


def test_a_digest_covers_the_salt_every_earlier_token_and_the_order() -> None:
    ids = list(range(3 * BLOCK))
    base = Chain("s", ids).blocks
    assert len(set(base)) == 3
    assert not set(base) & set(Chain("t", ids).blocks)
    for place in (0, BLOCK, 3 * BLOCK - 1):
        other = Chain("s", [*ids[:place], 9999, *ids[place + 1 :]]).blocks
        same = place // BLOCK
        assert other[:same] == base[:same]
        assert not set(other[same:]) & set(base)
    assert not set(Chain("s", ids[::-1]).blocks) & set(base)


def test_the_longest_prefix_is_found_at_any_block_of_an_entry_that_can_be_cut() -> None:
    index = index_of("abcd", "abxy")
    for asked, found in (
        ("abcd", (4, "abcd")),
        ("abcz", (3, "abcd")),
        ("abxyz", (4, "abxy")),
        ("a", (1, "abxy")),
        ("b", (0, None)),
    ):
        assert index.find(blocks_of(asked)) == found


def test_an_entry_that_cannot_be_cut_serves_only_what_begins_with_all_of_it() -> None:
    index = index_of("abcd", "ab", cuts=False)
    for asked, found in (("abcd", (4, "abcd")), ("abcz", (2, "ab")), ("a", (0, None)), ("abcde", (4, "abcd"))):
        assert index.find(blocks_of(asked)) == found
    assert index.known(blocks_of("abcz")) == 3
    assert index.usable(blocks_of("abcz")) == 2


def test_another_salt_finds_nothing() -> None:
    index = index_of("abcd")
    for salt in ("", "t", "s ", "S"):
        assert index.find(blocks_of("abcd", salt)) == (0, None)
        assert index.known(blocks_of("abcd", salt)) == 0


def test_a_longer_entry_takes_the_place_of_its_prefixes_and_a_shorter_one_adds_nothing() -> None:
    index = index_of("ab", "abcd", "abc")
    assert (len(index), index.size) == (1, 4)
    index = index_of("ab", "abcd", "abc", cuts=False)
    assert (len(index), index.size) == (3, 9)


def test_the_least_recently_used_entry_goes_first_and_goes_whole() -> None:
    index = index_of("aaaa", "bbbb", "cccc", size_max=12)
    assert index.find(blocks_of("aa")) == (2, "aaaa")
    assert index.put(blocks_of("ddd"), "ddd", 3)
    assert [index.usable(blocks_of(one)) for one in ("aaaa", "bbbb", "cccc", "ddd")] == [4, 0, 4, 3]
    assert index.put(blocks_of("e" * 8), "eight", 8)
    assert [index.usable(blocks_of(one)) for one in ("aaaa", "cccc", "ddd", "e")] == [0, 0, 3, 1]
    assert (len(index), index.size) == (2, 11)


def test_looking_without_finding_does_not_count_as_use() -> None:
    index = index_of("aaaa", "bbbb", size_max=8)
    assert index.usable(blocks_of("aaaa")) == index.known(blocks_of("aaaa")) == 4
    index.put(blocks_of("c"), "c", 1)
    assert index.usable(blocks_of("aaaa")) == 0


def test_what_is_larger_than_everything_may_be_is_not_held_and_evicts_nothing() -> None:
    index = index_of("aa", size_max=4)
    assert not index.put(blocks_of("bbbbb"), None, 5)
    assert not index.put([], None, 0)
    assert index.find(blocks_of("aa")) == (2, "aa")


def test_entries_without_bytes_are_bounded_by_their_number() -> None:
    index = PrefixIndex(0, cuts=True, entries_max=3)
    for letter in "abcde":
        assert index.put(blocks_of(letter), letter, 0)
    assert [index.usable(blocks_of(letter)) for letter in "abcde"] == [0, 0, 1, 1, 1]


def test_clearing_leaves_nothing() -> None:
    index = index_of("ab", "cd")
    index.clear()
    assert (len(index), index.size, index.find(blocks_of("ab"))) == (0, 0, (0, None))
    assert index.put(blocks_of("ab"), "new", 2)


@dataclass
class Model:
    """What the index should do, told in letters: entries as (salt, letters), least recently used first."""

    size_max: int
    cuts: bool
    entries: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def served(self, salt: str, asked: str) -> int:
        """The longest prefix of a question that an entry serves."""
        depths = [0]
        for held_salt, held in self.entries:
            if held_salt == salt:
                common = next((n for n, (a, b) in enumerate(zip(held, asked, strict=False)) if a != b), None)
                common = min(len(held), len(asked)) if common is None else common
                depths.append(common if self.cuts or common == len(held) else 0)
        return max(depths)

    def put(self, salt: str, letters: str) -> None:
        """Replace prefixes, then evict, then add."""
        if not letters or len(letters) > self.size_max or self.served(salt, letters) == len(letters):
            return
        if self.cuts:
            self.entries = [e for e in self.entries if not (e[0] == salt and letters.startswith(e[1]))]
        while sum(len(held) for _, held in self.entries) + len(letters) > self.size_max:
            self.entries.pop(0)
        self.entries.append((salt, letters))

    def used(self, entry: tuple[str, str]) -> None:
        """The entry moves to the end."""
        self.entries.remove(entry)
        self.entries.append(entry)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "find"]), st.sampled_from(["s", "t"]), st.text("ab", max_size=6)), max_size=40
)


@settings(max_examples=400)
@given(OPERATIONS, st.integers(1, 24), st.booleans())
def test_the_index_is_its_model_and_never_over_its_bytes_nor_under_another_salt(
    operations: list[tuple[str, str, str]], size_max: int, cuts: bool
) -> None:
    model, index = Model(size_max, cuts), PrefixIndex(size_max, cuts)
    for kind, salt, letters in operations:
        blocks = blocks_of(letters, salt)
        if kind == "put":
            index.put(blocks, (salt, letters), len(letters))
            model.put(salt, letters)
        else:
            depth, held = index.find(blocks)
            assert depth == model.served(salt, letters)
            if depth:
                held_salt, held_letters = cast(tuple[str, str], held)
                assert held_salt == salt
                assert held_letters[:depth] == letters[:depth]
                assert cuts or depth == len(held_letters)
                model.used((held_salt, held_letters))
        assert len(index) == len(model.entries)
        assert index.size == sum(len(held) for _, held in model.entries) <= size_max
        for held_salt, held in model.entries:
            assert index.usable(blocks_of(held, held_salt)) == len(held)


@pytest.mark.parametrize("cuts", [True, False])
def test_putting_what_is_held_keeps_the_first_copy(cuts: bool) -> None:
    index = index_of("ab", cuts=cuts)
    assert not index.put(blocks_of("ab"), "again", 2)
    assert index.find(blocks_of("ab")) == (2, "ab")
