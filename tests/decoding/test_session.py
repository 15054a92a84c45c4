"""Rows that join and leave a running batch give what they give alone, and leave nothing behind."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import BOS, gptj_toy, random_bytes, tiny_model

from bytelm.decoding import (
    Arrival,
    AutoDrafter,
    HeadsDrafter,
    LookupDrafter,
    ModelDrafter,
    NoRepeatNgram,
    RepetitionPenalty,
    Sampling,
    Session,
    decode,
)
from bytelm.decoding.emitters import Emitters
from bytelm.errors import DecodingError
from bytelm.model.targets import make_target
from bytelm.testing import ToyLaw, ToyTarget

LAW = ToyLaw.random(7, seed=4)
SAMPLINGS = [Sampling(), Sampling(do_sample=True), Sampling(do_sample=True, temperature=0.7, top_k=4, top_p=0.9)]
PROCESSORS = [None, lambda: NoRepeatNgram(3), lambda: RepetitionPenalty(1.5)]


def alone(target, arrival, drafter=None):
    """What the rows of an arrival give without any others."""
    options = {field.name: getattr(arrival, field.name) for field in dataclasses.fields(arrival)}
    return decode(target, options.pop("prompts"), drafter=drafter, **options)


def run(session, schedule, leaving=()):
    """Admit arrivals before the rounds that ``schedule`` names and retire some; results and streams by row."""
    results, streams, number = {}, {}, 0

    def enter(steps):
        for step in steps:
            streams.setdefault(step.row, []).extend(step.symbols.tolist())
            if step.result is not None:
                results[step.row] = step.result

    while any(when >= number for when, _ in schedule) or session.num_live:
        arrivals = [arrival for when, arrival in schedule if when == number]
        if arrivals:
            enter(session.admit(arrivals))
        session.retire({row for when, row in leaving if when == number})
        if session.num_live:
            enter(session.round())
        number += 1
    return results, streams


def assert_as_alone(schedule, results, streams, make_target, tolerance=1e-9):
    """Every row that ended has the symbols, nats and finish that it has alone; every other is a beginning of those."""
    row = 0
    for _, arrival in sorted(schedule, key=lambda pair: pair[0]):
        expected = alone(make_target(), arrival)
        for i in range(arrival.num_rows):
            found = streams.get(row, [])
            assert found == expected.symbols[i].tolist()[: len(found)], f"row {row}"
            if row in results:
                assert results[row].symbols.tolist() == expected.symbols[i].tolist() == found
                np.testing.assert_allclose(results[row].nats, expected.nats[i], atol=tolerance, rtol=tolerance)
                assert results[row].finish == expected.finish[i]
                assert len(results[row].trace.source) == len(found)
            row += 1
    return row


ARRIVALS = st.fixed_dictionaries(
    {
        "prompts": st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=1, max_size=2),
        "max_new": st.integers(1, 14),
        "sampling": st.sampled_from(SAMPLINGS),
        "stop": st.none() | st.integers(1, 9),
        "processor": st.sampled_from(PROCESSORS),
        "num_sequences": st.integers(1, 2),
        "seed": st.integers(0, 5),
    }
)


def arrival_of(*, prompts, stop, processor, **options):
    """An arrival of plain values."""
    return Arrival(
        prompts=[np.array(prompt, dtype=np.uint8) for prompt in prompts],
        stops=() if stop is None else [lambda row, generated: len(generated) == stop],
        processor=None if processor is None else processor(),
        **options,
    )


DRAFTERS = {
    "none": lambda unit: None,
    "heads": lambda unit: HeadsDrafter(4),
    "lookup": lambda unit: LookupDrafter(8, min_match=1),
    "model": lambda unit: ModelDrafter(ToyTarget(LAW.near(9, 1.0)), 4),
    "auto": lambda unit: AutoDrafter([LookupDrafter(4, min_match=1), HeadsDrafter(4)]),
}


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("draft", DRAFTERS)
@given(
    drawn=st.lists(st.tuples(st.integers(0, 6), ARRIVALS), min_size=1, max_size=5),
    leaving=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9)), max_size=3),
)
def test_a_row_is_what_it_is_alone(draft, unit, drawn, leaving):
    schedule = [(when, arrival_of(**options)) for when, options in drawn]
    session = Session(ToyTarget(LAW, unit, LAW.near(5, 1.5)), drafter=DRAFTERS[draft](unit))
    results, streams = run(session, schedule, leaving)
    left = {row for _, row in leaving}
    total = assert_as_alone(schedule, results, streams, lambda: ToyTarget(LAW, unit))
    assert set(results) >= set(range(total)) - left
    assert session.num_rows == total
    assert session.totals.symbols == sum(map(len, streams.values()))


class Ahead(ToyTarget):
    """A device that computes while the host goes on: rows may have a forward after their end, and no more than one."""

    asynchronous = True

    def advance(self, emitted, counts, draft):
        self._finished_B = torch.zeros_like(self._finished_B)
        return super().advance(emitted, counts, draft)


@pytest.fixture(scope="module")
def nothing_is_compiled():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bytelm.decoding.emission.compiled", lambda function: function)
        yield


@pytest.mark.usefixtures("nothing_is_compiled")
@pytest.mark.parametrize("unit", [1, 4])
@given(
    drawn=st.lists(st.tuples(st.integers(0, 6), ARRIVALS), min_size=1, max_size=5),
    leaving=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9)), max_size=3),
    fixed_shapes=st.booleans(),
)
def test_a_row_is_what_it_is_alone_where_forwards_are_begun_ahead(unit, drawn, leaving, fixed_shapes):
    schedule = [(when, arrival_of(**options)) for when, options in drawn]
    session = Session(Ahead(LAW, unit, fixed_shapes=fixed_shapes))
    results, streams = run(session, schedule, leaving)
    total = assert_as_alone(schedule, results, streams, lambda: ToyTarget(LAW, unit))
    assert set(results) >= set(range(total)) - {row for _, row in leaving}
    assert session.totals.symbols == sum(map(len, streams.values()))


@pytest.mark.usefixtures("nothing_is_compiled")
@pytest.mark.parametrize("unit", [1, 4])
@given(options=ARRIVALS)
def test_books_and_forwards_of_runs_ahead(unit, options):
    """The figures are those without; one forward more is run where a stop ends a run, and none where a limit does."""
    arrival = arrival_of(**options)
    targets = [ToyTarget(LAW, unit), Ahead(LAW, unit, fixed_shapes=True)]
    plain, ahead = (alone(target, arrival) for target in targets)
    assert dataclasses.replace(ahead.stats, parts=plain.stats.parts) == plain.stats
    assert ahead.finish == plain.finish
    more = targets[1].forwards - targets[0].forwards
    assert more in ((0, 1) if "stop" in plain.finish else (0,))


BYTE_MODELS = {"next": "independent", "product": "independent", "chain": "chained"}
MIXED = [
    (0, Arrival(prompts=[random_bytes(21, 1), random_bytes(3, 2)], max_new=30, seed=3, sampling=SAMPLINGS[1])),
    (2, Arrival(prompts=[random_bytes(40, 3)], max_new=9, seed=1, sampling=SAMPLINGS[2], num_sequences=2)),
    (2, Arrival(prompts=[random_bytes(0)], max_new=50)),
    (5, Arrival(prompts=[random_bytes(7, 4)], max_new=26, seed=9, sampling=SAMPLINGS[1])),
    (60, Arrival(prompts=[random_bytes(7, 5)], max_new=6, seed=9, sampling=SAMPLINGS[1])),
]


@pytest.mark.parametrize("draft", ["none", "lookup", "heads"])
@pytest.mark.parametrize("law", BYTE_MODELS)
def test_rows_of_byte_models(law, draft):
    model = tiny_model(BYTE_MODELS[law])
    drafters = {"lookup": LookupDrafter(8, min_match=1), "heads": HeadsDrafter(3) if law == "next" else None}
    session = Session(make_target(model, law, BOS), drafter=drafters.get(draft))
    results, streams = run(session, MIXED)
    assert assert_as_alone(MIXED, results, streams, lambda: make_target(model, law, BOS), 1e-4) == len(results) == 7


def test_rows_of_token_models():
    lm = gptj_toy(torch.float32)
    schedule = [
        (
            when,
            dataclasses.replace(
                arrival, prompts=[np.append(prompt, 7).astype(np.int64) for prompt in arrival.prompts], max_new=9
            ),
        )
        for when, arrival in MIXED
    ]
    results, streams = run(Session(lm.make_target("next"), drafter=LookupDrafter(4, min_match=1)), schedule)
    assert assert_as_alone(schedule, results, streams, lambda: lm.make_target("next"), 1e-4) == len(results)


@pytest.mark.parametrize("law", ["next", "chain"])
def test_memory_is_what_the_rows_need_that_are_there(law):
    target = make_target(tiny_model("chained"), law, BOS)
    session = Session(target)
    small = Arrival(prompts=[random_bytes(4)], max_new=8)
    session.admit([small])
    least = target.cache.num_bytes
    session.admit([Arrival(prompts=[random_bytes(90)], max_new=100)])
    assert target.cache.num_bytes > 8 * least
    session.retire({1})
    session.admit([small])
    assert target.cache.num_bytes == 2 * least
    while session.num_live:
        session.round()
    session.release()
    assert target.cache.num_bytes == 0


def test_a_bound_on_what_is_read_does_not_grow_with_the_rows_that_came_and_went():
    """The number of slots that a forward reads is an upper bound kept on the host; rows that join make it exact."""
    target = make_target(tiny_model("chained"), "chain", BOS)
    session = Session(target, drafter=LookupDrafter(16, min_match=1))
    seen = []
    read = target._forward
    target._forward = lambda *args: seen.append(args[-1]) or read(*args)
    session.admit([Arrival(prompts=[np.zeros(40, np.uint8)], max_new=8)])
    for n in range(20):
        session.admit([Arrival(prompts=[np.zeros(40, np.uint8)], max_new=8, seed=n)])
        session.round()
    assert max(seen) <= (4 + 40 + 8 + 16) // 4 + 5


def test_what_is_refused_leaves_the_others_as_they_were():
    model = tiny_model("chained")
    session = Session(make_target(model, "chain", BOS))
    first = Arrival(prompts=[random_bytes(5)], max_new=20)
    steps = session.admit([first])
    with pytest.raises(DecodingError, match="expected at most the model's context"):
        session.admit([Arrival(prompts=[random_bytes(250)], max_new=20)])
    while session.num_live:
        steps += session.round()
    expected = alone(make_target(model, "chain", BOS), first)
    assert [s for step in steps for s in step.symbols.tolist()] == expected.symbols[0].tolist()
    assert session.num_rows == 1


def test_prompts_fit_each_with_its_own_limit():
    """What one row may still write is no business of another that is read with it."""
    session = Session(make_target(tiny_model("chained"), "next", BOS))
    session.admit([Arrival(prompts=[random_bytes(3)], max_new=240), Arrival(prompts=[random_bytes(240)], max_new=3)])
    assert session.num_live == 2


def test_a_rule_that_is_not_coupled_takes_one_arrival():
    session = Session(ToyTarget(LAW), verify="rejection")
    session.admit([Arrival(prompts=[np.zeros(1, np.uint8)], max_new=4, sampling=SAMPLINGS[1])])
    with pytest.raises(DecodingError, match="verify 'rejection': found rows of several arrivals"):
        session.admit([Arrival(prompts=[np.zeros(1, np.uint8)], max_new=4)])


def test_rows_of_the_same_options_share_an_emitter():
    session = Session(ToyTarget(LAW))
    sampled = Arrival(prompts=[np.zeros(1, np.uint8)] * 2, max_new=9, sampling=SAMPLINGS[1])
    session.admit([sampled, sampled])
    session.admit([dataclasses.replace(sampled, seed=5)])
    emitters: Emitters = session._batch.emitters
    assert len(emitters) == 1
    session.admit([dataclasses.replace(sampled, sampling=SAMPLINGS[2])])
    assert len(emitters) == 2
    session.retire(set(range(6)))
    session.round()
    assert len(emitters) == 1


def test_several_that_arrive_together_among_others_of_the_same_options():
    schedule = [
        (when, Arrival(prompts=[np.array([when], np.uint8)], max_new=12, seed=seed, sampling=SAMPLINGS[1]))
        for seed, when in enumerate([0, 1, 1, 1, 3, 3])
    ]
    results, streams = run(Session(ToyTarget(LAW)), schedule)
    assert assert_as_alone(schedule, results, streams, lambda: ToyTarget(LAW)) == len(results)


def test_the_noise_of_rows_that_join_is_their_own(monkeypatch):
    """Negative control: rows that join with the noise of the rows before them are noticed."""
    from bytelm.decoding.noise import GumbelNoise

    plain = GumbelNoise.join
    monkeypatch.setattr(
        GumbelNoise, "join", lambda self, other: plain(self, GumbelNoise([(0, 0)] * len(other._start_B)))
    )
    schedule = [
        (when, Arrival(prompts=[np.array([1, 2], np.uint8)], max_new=20, seed=when + 1, sampling=SAMPLINGS[1]))
        for when in range(3)
    ]
    results, streams = run(Session(ToyTarget(LAW)), schedule)
    with pytest.raises(AssertionError):
        assert_as_alone(schedule, results, streams, lambda: ToyTarget(LAW))
