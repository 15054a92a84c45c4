"""The orders inside a tier: permutations that keep the length of every word."""

import itertools
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.encoding import ORDERS, count_characters, count_pairs, fit_dense, fit_ranked
from bytelm.encoding.context_groups import group_by_context
from bytelm.encoding.order import Tier, arrange
from bytelm.encoding.scripts import SCRIPTS, scripts_of

ALPHABET = "".join(map(chr, [*range(0x61, 0x7B), *range(0x3B1, 0x3C9), *range(0x3042, 0x3082), *range(0x4E00, 0x4E40)]))


@st.composite
def tiered(draw):
    """Characters by rank, their counts, tiers that may reach beyond them, and a text."""
    characters = draw(st.lists(st.sampled_from(ALPHABET), unique=True, min_size=1))
    numbers = sorted(draw(st.lists(st.integers(1, 9), min_size=len(characters), max_size=len(characters))))[::-1]
    counts = np.zeros(0x110000, np.int64)
    points = np.array([ord(character) for character in characters])
    counts[points] = numbers
    ranked = points[np.lexsort((points, -counts[points]))]
    ends = np.cumsum([0, *draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)), 200])
    block = draw(st.integers(1, 12))
    tiers = [Tier(int(a), int(b), block) for a, b in itertools.pairwise(ends)]
    return ranked, counts, tiers, draw(st.text(st.sampled_from(ALPHABET), max_size=60))


@given(tiered(), st.sampled_from(ORDERS))
@settings(max_examples=60)
def test_every_order_permutes_within_the_tiers(case, order):
    ranked, counts, tiers, text = case
    pairs = count_pairs([text])
    found = arrange(ranked, counts, tiers, order, pairs)
    for tier in tiers:
        assert sorted(found[tier.start : tier.stop]) == sorted(ranked[tier.start : tier.stop])
    assert len(found) == len(ranked)
    assert np.array_equal(arrange(ranked, counts, tiers, order, pairs), found)


@given(tiered())
def test_the_simple_orders_are_what_they_say(case):
    ranked, counts, tiers, _ = case
    assert arrange(ranked, counts, tiers, "rank").tolist() == ranked.tolist()
    by_codepoint = arrange(ranked, counts, tiers, "codepoint")
    spread = arrange(ranked, counts, tiers, "spread")
    for tier in tiers:
        members = ranked[tier.start : tier.stop].tolist()
        assert by_codepoint[tier.start : tier.stop].tolist() == sorted(members)
        assert spread[tier.start : tier.stop].tolist() == slow_spread(members, tier.block)


def slow_spread(members: list[int], block: int) -> list[int]:
    """Deal the characters to the blocks in turn, passing over blocks that are full."""
    room = [min(block, len(members) - start) for start in range(0, len(members), block)]
    blocks: list[list[int]] = [[] for _ in room]
    at = 0
    for member in members:
        while len(blocks[at]) == room[at]:
            at = (at + 1) % len(room)
        blocks[at].append(member)
        at = (at + 1) % len(room)
    return [member for block in blocks for member in block]


def test_spread_gives_the_ith_character_lead_byte_i_modulo_c():
    counts = {chr(0x4E00 + i): 10_000 - i for i in range(231 + 231 * 17)}
    dense = fit_dense(counts, "spread", order="spread", one_byte="")
    assert (dense.s, dense.c) == (231, 17)
    for i, character in enumerate(list(counts)[231:]):
        assert dense.encode(character).tolist() == [231 + i % 17, i // 17]


def test_script_groups_by_script_and_frequency():
    text = "か" * 9 + "き" * 2 + "alpha" + "б" * 30 + "γ" * 3 + "く"
    counts = count_characters([text])
    ranked = np.array([ord(c) for c, _ in sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))])
    found = arrange(ranked, counts, [Tier(0, 100, 10)], "script")
    # Cyrillic 30, Hiragana 12, Latin 5, Greek 3
    assert "".join(map(chr, found)) == "бかきくahlpγ"


def test_scripts_are_those_of_the_names_of_characters():
    text = "aбγあア水กकعא한1。"
    names = ["LATIN", "CYRILLIC", "GREEK", "HIRAGANA", "KATAKANA", "CJK", "THAI", "DEVANAGARI", "ARABIC", "HEBREW"]
    for character, name, script in zip(text[:10], names, scripts_of(text)[:10], strict=True):
        assert unicodedata.name(character).startswith(name)
        assert script.upper() == ("HAN" if name == "CJK" else name)
    assert scripts_of("한1。") == ["Hangul", "Common", "Common"]
    assert scripts_of("\U000e0fff") == [""]
    assert len(set(SCRIPTS)) == len(SCRIPTS)


def two_worlds(size: int) -> tuple[str, str, list[str]]:
    """Characters of two kinds, mixed in frequency: one kind stands between a and b only, the other between x and y."""
    odd, even = (list(map(chr, range(0x4E00 + k, 0x4E00 + 2 * size, 2))) for k in (0, 1))
    # the kinds change places from rank to rank, so that neither halves nor every second rank are one kind
    texts = [f"a{c}b" * (1000 - 2 * i - i % 2) for i, c in enumerate(odd)]
    texts += [f"x{c}y" * (999 - 2 * i + i % 2) for i, c in enumerate(even)]
    return "".join(odd), "".join(even), texts


def test_context_finds_the_groups_that_the_neighbours_tell_apart():
    odd, even, texts = two_worlds(40)
    counts, pairs = count_characters(texts), count_pairs(texts)
    members = np.array(sorted(map(ord, odd + even), key=lambda point: (-counts[point], point)))
    groups = group_by_context(members, 40, counts, pairs)
    assert {frozenset(map(chr, members[groups == group])) for group in (0, 1)} == {frozenset(odd), frozenset(even)}
    weights = [counts[members[groups == group]].sum() for group in (0, 1)]
    assert weights == sorted(weights, reverse=True)


@given(st.integers(2, 60), st.integers(1, 25))
@settings(max_examples=15)
def test_groups_of_context_have_the_size_of_blocks(number, size):
    _, _, texts = two_worlds(30)
    counts, pairs = count_characters(texts), count_pairs(texts)
    members = np.arange(0x4E00, 0x4E00 + number)
    groups = group_by_context(members, size, counts, pairs)
    assert np.bincount(groups).tolist() == [size] * (number // size) + ([number % size] if number % size else [])


def slow_information(texts: list[str], member: set[str], lead: dict[str, int]) -> float:
    """Bits that the lead byte of a member tells about its left neighbour."""
    joint = Counter((lead[t[i]], t[i - 1]) for t in texts for i in range(1, len(t)) if t[i] in member)
    total = joint.total()
    leads, lefts = Counter(), Counter()
    for (a, b), n in joint.items():
        leads[a] += n
        lefts[b] += n
    return sum(n / total * np.log2(n * total / leads[a] / lefts[b]) for (a, b), n in joint.items())


@pytest.mark.parametrize("other", ["rank", "codepoint", "script", "spread"])
def test_lead_bytes_say_most_about_the_neighbours_with_context(other):
    """In a real code: 231 frequent fillers of one byte, then two full lead bytes of characters in two worlds."""
    _, _, texts = two_worlds(231)
    fillers = "".join(map(chr, range(0xAC00, 0xAC00 + 227)))
    counts = count_characters([*texts, fillers * 2000])
    pairs = count_pairs(texts)
    member = set("".join(texts)) - set("abxy")
    found = {}
    for order in ("context", other):
        dense = fit_dense(counts, order, order=order, pairs=pairs, one_byte="")
        lead = {c: int(dense.encode(c)[0]) for c in member}
        assert {len(dense.encode(c)) for c in member} == {2}
        found[order] = slow_information(texts, member, lead)
    assert found["context"] == pytest.approx(1, abs=0.01)
    assert found[other] < 0.1


@pytest.mark.parametrize("order", ORDERS)
def test_all_orders_have_words_of_the_same_lengths(order):
    rng = np.random.default_rng(5)
    points = rng.choice(np.arange(0x4E00, 0x9FFF), 6000, replace=False)
    counts = np.zeros(0x110000, np.int64)
    counts[points] = rng.zipf(1.3, 6000).clip(max=10**6) + 1
    pairs = count_pairs(["".join(map(chr, rng.choice(points, 5000)))])
    dense = fit_dense(counts, "x", order=order, pairs=pairs)
    assert np.array_equal(dense.lengths, fit_dense(counts, "x").lengths)
    ranked = fit_ranked(counts, "x", order=order, pairs=pairs)
    assert np.array_equal(ranked.lengths, fit_ranked(counts, "x").lengths)
    if order in ("spread", "context", "codepoint"):
        assert ranked.ranked != fit_ranked(counts, "x").ranked
