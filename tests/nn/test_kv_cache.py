import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.nn.attention import Attention
from bytelm.nn.kv_cache import CacheView, KVCache
from bytelm.nn.position import Rotary

ROWS, CAPACITY, WIDTH, HEADS, KV_HEADS, HEAD_WIDTH = 3, 9, 12, 4, 2, 6
HUGE = 1e30
"""What a slot that must not be seen holds where NaN cannot be hidden by a mask (0 times NaN is NaN)."""

operations = st.lists(
    st.tuples(
        st.sets(st.integers(0, ROWS - 1), min_size=1).map(sorted),
        st.integers(1, 3),
        st.lists(st.integers(0, 3), min_size=ROWS, max_size=ROWS),
    ),
    min_size=1,
    max_size=8,
)
"""Rows that are written, how many positions, and by how much each row is rolled back before."""


def poison(cache, lengths, num_slots):
    """Spoil every slot that is not committed: what a mask must hide with huge numbers, what is never read with NaN."""
    for tensor in (*cache.keys, *cache.values):
        for row, length in enumerate(lengths):
            tensor[row, :, length:] = HUGE
        tensor[:, :, max(num_slots, *lengths) :] = math.nan  # other rows may have committed more


def attend(attention, x, positions, view):
    return attention(x, Rotary(HEAD_WIDTH, 100.0)(positions, None if view is None else view.mask_B1TS), 0, view)


@torch.no_grad()
def compare(attention, cache, steps, extra_slots=0):
    """Drive a cache and a list of inputs per row side by side; cached and full outputs of each written row agree."""
    lists = [torch.zeros(0, WIDTH) for _ in range(ROWS)]
    for rows, width, rollback in steps:
        begins = [max(0, len(lists[r]) - rollback[r]) for r in rows]
        width = min(width, CAPACITY - max(begins))
        if width <= 0:
            continue
        x = torch.randn(len(rows), width, WIDTH)
        positions = torch.tensor(begins)[:, None] + torch.arange(width)
        num_slots = min(int(positions.max()) + 1 + extra_slots, CAPACITY)
        for r, begin in zip(rows, begins, strict=True):
            lists[r] = lists[r][:begin]
        poison(cache, [len(row) for row in lists], num_slots)
        view = CacheView(cache, torch.tensor(rows), positions, num_slots)
        found = attend(attention, x, positions, view)
        for i, r in enumerate(rows):
            lists[r] = torch.cat((lists[r], x[i]))
            full = attend(attention, lists[r][None], torch.arange(len(lists[r])), None)
            torch.testing.assert_close(found[i], full[0, -width:], atol=1e-5, rtol=0)


@given(operations, st.integers(0, 2))
def test_any_order_of_writes_and_roll_backs_equals_full_attention(steps, extra_slots):
    torch.manual_seed(1)
    attention = Attention(WIDTH, HEADS, KV_HEADS, HEAD_WIDTH)
    cache = KVCache(1, ROWS, KV_HEADS, CAPACITY, HEAD_WIDTH)
    compare(attention, cache, steps, extra_slots)


def test_a_mask_that_shows_one_slot_too_many_is_caught(monkeypatch):
    attention = Attention(WIDTH, HEADS, KV_HEADS, HEAD_WIDTH)
    cache = KVCache(1, ROWS, KV_HEADS, CAPACITY, HEAD_WIDTH)
    plain = CacheView.__init__

    def generous(self, cache, rows, positions, num_slots):
        plain(self, cache, rows, positions, num_slots)
        self.last_seen = positions + 1

    monkeypatch.setattr(CacheView, "__init__", generous)
    steps = [([0, 1, 2], 3, [0, 0, 0]), ([0, 1, 2], 1, [1, 2, 3])]
    with pytest.raises(AssertionError, match="not close"):
        compare(attention, cache, steps)


def test_reading_all_rows_copies_nothing():
    cache = KVCache(1, ROWS, KV_HEADS, CAPACITY, HEAD_WIDTH)
    view = CacheView(cache, None, torch.full((ROWS, 1), 3), 4)
    keys, values = view.extend(0, *torch.randn(2, ROWS, KV_HEADS, 1, HEAD_WIDTH))
    assert keys.data_ptr() == cache.keys[0].data_ptr()
    assert values.shape == (ROWS, KV_HEADS, 4, HEAD_WIDTH)
    assert cache.capacity == CAPACITY
    assert cache.num_bytes == 2 * ROWS * KV_HEADS * CAPACITY * HEAD_WIDTH * 4


def test_rows_are_kept_moved_and_copied():
    cache = KVCache(2, ROWS, KV_HEADS, CAPACITY, HEAD_WIDTH)
    for parts in (cache.keys, cache.values):
        for part in parts:
            part.normal_()
    before = [part.clone() for part in (*cache.keys, *cache.values)]
    cache.select(torch.tensor([2, 0, 0]))
    for part, was in zip((*cache.keys, *cache.values), before, strict=True):
        assert torch.equal(part, was[[2, 0, 0]])
    cache.keys[0][1] += 1
    assert not torch.equal(cache.keys[0][1], cache.keys[0][2])
