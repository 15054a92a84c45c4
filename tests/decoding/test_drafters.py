"""Look-up finds what brute force finds; auto settles on what pays; a small model keeps up however it is used."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import BOS, random_bytes, tiny_model

from bytelm.decoding import AutoDrafter, Draft, LookupDrafter, ModelDrafter, NoDrafter, Round, Sampling, decode
from bytelm.decoding.drafters.base import StatelessDrafter
from bytelm.decoding.drafters.suffixes import SuffixAutomaton
from bytelm.errors import DecodingError
from bytelm.model.targets import make_target

texts = st.lists(st.integers(0, 2), max_size=24)


def longest_repeated_suffix(symbols):
    """Length of the longest suffix that also ends earlier."""
    n = len(symbols)
    for length in range(n - 1, 0, -1):
        suffix = symbols[n - length :]
        if any(symbols[i : i + length] == suffix for i in range(n - length)):
            return length
    return 0


def places_after(symbols, length):
    """Where the suffix of this length has ended earlier."""
    n = len(symbols)
    suffix = symbols[n - length :]
    return [i + length for i in range(n - length) if symbols[i : i + length] == suffix]


@given(texts, st.integers(1, 4), st.integers(1, 9), st.integers(0, 24))
def test_the_longest_earlier_match_is_found(symbols, min_match, most, cut):
    automaton = SuffixAutomaton(symbols[:cut])
    automaton.extend(symbols[cut:])
    assert len(automaton) == len(symbols)
    found, length = automaton.continuation(min_match, most), longest_repeated_suffix(symbols)
    if length < min_match:
        assert found == []
        return
    last = max(places_after(symbols, length))
    endless = symbols[last:]
    while len(endless) < most:
        endless = endless + symbols[last:]
    assert found == endless[:most]


def test_every_short_sequence():
    """All sequences over two symbols of up to nine: the place is the last one, and right."""
    for n in range(10):
        for symbols in itertools.product((0, 1), repeat=n):
            automaton, length = SuffixAutomaton(symbols), longest_repeated_suffix(list(symbols))
            found = automaton.continuation(1, 1)
            assert found == ([symbols[max(places_after(list(symbols), length))]] if length else [])


def test_a_copy_grows_on_its_own():
    first = SuffixAutomaton([1, 2, 3, 1, 2])
    second = first.copy()
    second.extend([3, 4])
    first.extend([9])
    assert first.continuation(1, 2) == []
    assert second.continuation(1, 2) == []
    second.extend([1, 2, 3])
    assert second.continuation(3, 2) == [4, 1]
    assert len(first) == 6


def test_a_long_run_costs_little():
    automaton = SuffixAutomaton([7] * 20_000)
    assert automaton.continuation(6, 4) == [7] * 4


class NoBlock:
    """A block that nobody looks at."""

    num_states = 1

    def logits(self, prefix):
        raise AssertionError

    def select(self, rows):
        raise AssertionError


class NoChoice:
    def __call__(self, logits, drafted):
        raise AssertionError


@dataclasses.dataclass
class TheseBooks:
    rows: list
    room: int

    def histories(self):
        return self.rows


def a_round(histories, room=99, unit=1):
    none = torch.zeros(len(histories), unit, dtype=torch.int64)
    return Round(NoBlock(), none, torch.full((len(histories),), unit), unit, NoChoice(), TheseBooks(histories, room))


def as_arrays(*rows):
    return [np.array(row, np.uint8) for row in rows]


def lookup(prompts, histories, unit=1, room=99, **options):
    drafter = LookupDrafter(**options)
    target = make_target(tiny_model(), "chain" if unit == 4 else "next", BOS)
    drafter.start(as_arrays(*prompts), 50, target)
    return drafter.propose(a_round(as_arrays(*histories), room, unit))


def test_rows_without_a_match_are_filler():
    abc = [1, 2, 3, 4, 5, 6, 7, 8]
    draft = lookup([abc, []], [[*abc, *abc[:6]], [1, 2]], num=3)
    assert draft.symbols.tolist() == [[7, 8, 1], [0, 0, 0]]
    assert draft.proposed.tolist() == [3, 0]
    assert lookup([abc, []], [[*abc, 9], [1, 2]]).symbols.shape == (2, 0)


def test_matches_shorter_than_asked_are_not_used():
    abc = [1, 2, 3, 4, 5, 6, 7, 8]
    assert lookup([abc], [[*abc, *abc[:5]]]).symbols.shape == (1, 0)
    assert lookup([abc], [[*abc, *abc[:5]]], min_match=5, num=2).symbols.tolist() == [[6, 7]]


def test_drafts_are_whole_units_and_no_longer_than_what_is_left():
    abc = list(range(1, 13))
    assert lookup([abc], [[*abc, *abc[:6]]], unit=4, num=10).symbols.shape == (1, 8)
    draft = lookup([abc], [[*abc, *abc[:6]]], unit=4, num=16, room=5)
    assert draft.symbols.shape == (1, 8)
    assert draft.proposed.tolist() == [5]


@pytest.mark.parametrize("options", [{"num": 0}, {"min_match": 0}])
def test_lookup_refuses(options):
    with pytest.raises(DecodingError, match=r"draft 'lookup': found \w+ = 0"):
        LookupDrafter(**options)


class Fake(StatelessDrafter):
    """Proposes a fixed width."""

    def __init__(self, name, width, every=1):
        self.name, self.max_draft, self.every, self.asked = name, width, every, 0

    def propose(self, round_):
        self.asked += 1
        width = self.max_draft if self.asked % self.every == 0 else 0
        return Draft(torch.zeros(len(round_.counts), width, dtype=torch.int64), source=self.name)


def begun(drafters, memory=None, rows=1, max_new=10**6):
    auto = AutoDrafter(drafters, memory)
    auto.start(as_arrays(*[[1]] * rows), max_new, make_target(tiny_model(), "next", BOS))
    return auto


def settle(drafters, speeds, rounds=300):
    """Which drafter was used in each round, where one gives ``speeds[name] = (symbols, seconds)`` a round."""
    auto, used = begun(drafters), []
    for _ in range(rounds):
        draft = auto.propose(a_round(as_arrays([1])))
        used.append(draft.source)
        symbols, seconds = speeds[draft.source]
        auto.observe(np.array([symbols]), seconds)
    return used


@pytest.mark.parametrize("best", ["none", "wide", "narrow"])
def test_auto_settles_on_what_pays(best):
    speeds = {"none": (1, 1.0), "wide": (4, 5.0), "narrow": (2, 2.5)}
    speeds[best] = (speeds[best][0], 0.5)
    used = settle([Fake("wide", 3), Fake("narrow", 1)], speeds)
    assert set(used[:12]) == {"none", "wide", "narrow"}
    assert used[20:].count(best) > 0.9 * len(used[20:])
    assert len(set(used[20:])) > 1, "what loses is tried again now and then"


def test_auto_uses_a_drafter_only_where_it_proposes():
    rare = Fake("rare", 4, every=3)
    used = settle([rare], {"none": (1, 1.0), "rare": (5, 1.1)})
    assert used.count("rare") == pytest.approx(len(used) / 3, abs=20)


def test_auto_drops_drafts_of_a_width_that_loses():
    """The drafter pays as a whole, but only where its drafts are short."""

    class TwoWidths(Fake):
        def propose(self, round_):
            self.asked += 1
            width = 2 if self.asked % 2 else 9
            return Draft(torch.zeros(len(round_.counts), width, dtype=torch.int64), source=self.name)

    auto, used = begun([TwoWidths("two", 9)]), []
    for _ in range(400):
        width = auto.propose(a_round(as_arrays([1]))).symbols.shape[1]
        used.append(width)
        auto.observe(np.array([1 if width == 0 else 3]), {0: 1.0, 2: 1.0, 9: 3.5}[width])
    assert used[40:].count(9) < 12
    assert used[40:].count(2) == pytest.approx(180, abs=25)
    assert used[40:].count(0) == pytest.approx(180, abs=25)


def test_many_widths_are_not_tried_one_after_another_where_none_pays():
    rng = np.random.default_rng(0)

    class AnyWidth(Fake):
        def propose(self, round_):
            return Draft(torch.zeros(len(round_.counts), int(rng.integers(1, 17)), dtype=torch.int64), source=self.name)

    used = settle([AnyWidth("any", 16)], {"none": (1, 1.0), "any": (2, 3.0)})
    assert used.count("any") < 12


@pytest.mark.parametrize(("seconds", "times"), [(9.0, 1), (1.5, 3)])
def test_what_is_far_behind_is_told_from_one_round(seconds, times):
    """Twice as slow as no draft, or slower, once is trial enough; else a few rounds are."""
    used = settle([Fake("wide", 3)], {"none": (1, 1.0), "wide": (1, seconds)}, rounds=20)
    assert used.count("wide") == times


def test_nothing_is_reckoned_for_some_rounds_where_no_draft_pays_and_rows_that_leave_end_that():
    auto, reckoned = begun([Fake("wide", 3)], rows=2), []
    auto._progress.evenness = lambda name: reckoned.append(name) or 1.0
    for _ in range(64):
        draft = auto.propose(a_round(as_arrays([1], [1])))
        auto.observe(np.array([1, 1]), 9.0 if draft.source == "wide" else 1.0)
    assert 64 / 9 < len(reckoned) / 2 < 64 / 4
    auto.propose(a_round(as_arrays([1], [1])))
    auto._rest, before = 5, len(reckoned)
    auto.select(np.array([1]))
    auto.propose(a_round(as_arrays([1])))
    assert len(reckoned) == before + 2


def test_auto_notices_that_the_text_has_changed():
    auto = begun([Fake("heads", 3)])
    used = []
    for step in range(600):
        draft = auto.propose(a_round(as_arrays([1])))
        used.append(draft.source)
        good = step < 100
        auto.observe(np.array([4 if draft.source == "heads" and good else 1]), 1.5 if draft.source == "heads" else 1.0)
    assert used[20:100].count("heads") > 70
    assert used[200:].count("none") > 0.9 * 400


def test_what_auto_has_learnt_goes_on():
    memory = {}
    for _ in range(2):
        auto = begun([Fake("slow", 3)], memory)
        used = []
        for _ in range(30):
            draft = auto.propose(a_round(as_arrays([1])))
            used.append(draft.source)
            auto.observe(np.array([1]), 9.0 if draft.source == "slow" else 1.0)
    assert used.count("slow") <= 2


@pytest.mark.parametrize(("gains", "pays"), [((6, 6, 6, 6), True), ((21, 1, 1, 1), False), ((6, 6, 6, 1), False)])
def test_auto_looks_at_the_rows_that_end_last(gains, pays):
    """The mean gain is about the same; a batch whose last row gains nothing ends no sooner for dearer rounds."""
    auto, used = begun([Fake("heads", 20)], rows=4, max_new=5_000), []
    for _ in range(200):
        draft = auto.propose(a_round(as_arrays(*[[1]] * 4)))
        used.append(draft.source)
        drafted = draft.source == "heads"
        auto.observe(np.array(gains if drafted else (1, 1, 1, 1)), 2.5 if drafted else 1.0)
    assert (used[40:].count("heads") > 150) if pays else (used[40:].count("none") > 140)


def test_auto_tries_nothing_new_shortly_before_the_end():
    for max_new, tried in ((15, False), (40, True)):
        auto, used = begun([Fake("heads", 3)], max_new=max_new), []
        for _ in range(max_new):
            used.append(auto.propose(a_round(as_arrays([1]))).source)
            auto.observe(np.array([1]), 1.0)
        assert ("heads" in used) == tried


SAMPLED = Sampling(do_sample=True)


@pytest.mark.parametrize("num", [4, 8])
@pytest.mark.parametrize("law", ["chain", "next"])
def test_a_small_model_that_was_idle_catches_up(law, num):
    """Used in some rounds only, it must first read what others have written, a little or more than fits one forward."""

    class Sometimes:
        """The small model in round 1, 2, then after pauses; nothing in between."""

        name, used = "sometimes", 0

        def __init__(self, inner):
            self.inner, self.max_draft = inner, inner.max_draft
            self.start, self.select, self.observe = inner.start, inner.select, inner.observe
            self.wide = 0

        def propose(self, round_):
            self.used += 1
            if self.used in (1, 2, 5, 6, 40, 41, 42):
                draft = self.inner.propose(round_)
                self.wide += 1
                return draft
            return NoDrafter().propose(round_)

    model = tiny_model(context=512)
    prompts = [random_bytes(n, n) for n in (5, 0, 18)]
    new = 110 if law == "next" else 240
    plain = decode(make_target(model, law, BOS), prompts, max_new=new, sampling=SAMPLED, seed=4)
    drafter = Sometimes(ModelDrafter(make_target(model, law, BOS), num))
    run = decode(make_target(model, law, BOS), prompts, max_new=new, sampling=SAMPLED, seed=4, drafter=drafter)
    assert [s.tolist() for s in run.symbols] == [s.tolist() for s in plain.symbols]
    assert drafter.wide == 7
    judged, accepted = run.stats.by_drafter["model"]
    assert judged == accepted > 60, "a model that drafts for itself is always right"


def test_a_small_model_of_another_unit_is_refused():
    model = tiny_model()
    with pytest.raises(DecodingError, match="a law of 4 symbols at a time, expected 1 or 1"):
        decode(
            make_target(model, "next", BOS),
            [random_bytes(3)],
            max_new=3,
            drafter=ModelDrafter(make_target(model, "chain", BOS), 4),
        )
    with pytest.raises(DecodingError, match="less than one unit"):
        decode(
            make_target(model, "chain", BOS),
            [random_bytes(3)],
            max_new=3,
            drafter=ModelDrafter(make_target(model, "next", BOS), 3),
        )


def test_padded_vocabularies():
    """A small model with more symbols than the target, or fewer, drafts; what only it has is never proposed."""

    class Widened:
        """A target whose small vocabulary is made wider or narrower."""

        def __init__(self, inner, vocab):
            self.inner, self.vocab = inner, vocab
            for name in ("unit", "vocab_size", "device", "fixed_shapes", "select", "rewind"):
                setattr(self, name, getattr(inner, name))

        def _wrap(self, block):
            outer, logits = self, block.logits

            def widened(prefix):
                found = logits(prefix)
                if outer.vocab <= found.shape[-1]:
                    return found[..., : outer.vocab]
                extra = torch.full((*found.shape[:-1], outer.vocab - found.shape[-1]), 1e4)
                return torch.cat((found, extra), dim=-1)

            block.logits = widened
            return block

        def start(self, *args):
            return self._wrap(self.inner.start(*args))

        def advance(self, *args):
            return self._wrap(self.inner.advance(*args))

    model, prompts = tiny_model(), [random_bytes(5), random_bytes(2, 1)]
    plain = decode(make_target(model, "next", BOS), prompts, max_new=20, sampling=SAMPLED)
    for vocab in (300, 200):
        for verify in ("exact", "rejection"):
            small = Widened(make_target(model, "next", BOS), vocab)
            run = decode(
                make_target(model, "next", BOS),
                prompts,
                max_new=20,
                sampling=SAMPLED,
                drafter=ModelDrafter(small, 3),
                verify=verify,
            )
            judged, accepted = run.stats.by_drafter["model"]
            assert judged >= accepted > 0
            if verify == "exact":
                assert [s.tolist() for s in run.symbols] == [s.tolist() for s in plain.symbols]
            if vocab == 300:
                assert accepted == judged
