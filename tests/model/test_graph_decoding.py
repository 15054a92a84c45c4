"""Decoding by replayed recordings, with forwards begun ahead, gives what decoding without them gives."""

import copy
import gc

import numpy as np
import pytest
import torch
from replayed import ReplayedGraphs
from support import BOS, LAWS, gptj_toy, random_bytes, tiny_model

from bytelm.decoding import Arrival, HeadsDrafter, LookupDrafter, RepetitionPenalty, Sampling, Session, decode
from bytelm.graphs import CudaRecorder, Graphs, Lender
from bytelm.model.targets import make_target

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = [
    pytest.param("replayed", id="replayed"),
    pytest.param("cuda", id="cuda", marks=GPU),
    pytest.param("cuda compiled", id="cuda-compiled", marks=GPU),
]
SAMPLINGS = [Sampling(), Sampling(do_sample=True, temperature=0.8, top_k=40, top_p=0.9)]
PROMPTS = [random_bytes(n, n) for n in (5, 0, 3, 18, 2)]
STOPS = [lambda row, generated: row == 1 and len(generated) == 6, lambda row, generated: generated[-1] == 17]
MODELS: dict = {}


def model_on(device, kind, tables):
    key = device.split()[0], kind, tables
    if key not in MODELS:
        MODELS[key] = tiny_model(kind, tables).to("cuda" if device.startswith("cuda") else "cpu")
    return MODELS[key]


def make_graphs(device):
    return ReplayedGraphs() if device == "replayed" else Graphs(CudaRecorder(torch.device("cuda")))


def graph_target(device, model, law, graphs, bos=BOS):
    target = make_target(model, law, bos, compiled=device.endswith("compiled"), graphs=graphs)
    target.asynchronous = True
    return target


def drafters(law):
    return {"none": None, "lookup": LookupDrafter(8, min_match=1), "heads": HeadsDrafter(3) if law == "next" else None}


def assert_same(found, expected, forwards=True):
    assert [s.tolist() for s in found.symbols] == [s.tolist() for s in expected.symbols]
    assert found.finish == expected.finish
    for one, other in zip(found.nats, expected.nats, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    if forwards:
        assert found.stats.forwards == expected.stats.forwards
        assert found.stats.row_forwards == expected.stats.row_forwards
        assert found.stats.accepted_at == expected.stats.accepted_at


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("law", "kind", "tables"), LAWS)
def test_every_law_drafter_and_batch(device, law, kind, tables):
    """Ragged prompts, stops, rows that end early; the same graphs for all, as runs leave them to the next."""
    model, graphs = model_on(device, kind, tables), make_graphs(device)
    for drafter in drafters(law).values():
        for batch, sampling in ((1, SAMPLINGS[0]), (1, SAMPLINGS[1]), (5, SAMPLINGS[1])):
            options = {"max_new": 30, "sampling": sampling, "stops": STOPS, "seed": list(range(batch))}
            expected = decode(make_target(model, law, BOS), PROMPTS[:batch], drafter=drafter, **options)
            target = graph_target(device, model, law, graphs)
            assert_same(decode(target, PROMPTS[:batch], drafter=drafter, **options), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("law", "kind"), [("next", "independent"), ("chain", "chained")])
def test_a_second_run_records_nothing(device, law, kind):
    """Cache and bytes are where they were; what the first run left in them does not show."""
    model, graphs = model_on(device, kind, False), make_graphs(device)
    runs = []
    for seed in (1, 2, 1):
        options = {"max_new": 30, "sampling": SAMPLINGS[1], "seed": [seed, seed + 1]}
        expected = decode(make_target(model, law, BOS), PROMPTS[2:4], **options)
        before = graphs.num_recorded
        assert_same(decode(graph_target(device, model, law, graphs), PROMPTS[2:4], **options), expected)
        runs.append(graphs.num_recorded - before)
        with torch.inference_mode():
            for part in graphs.kept["cache"].keys:
                part.fill_(torch.nan)
    assert runs[0] >= 2
    assert runs[1:] == [0, 0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("law", "kind"), [("next", "independent"), ("chain", "chained")])
def test_rows_that_join_and_leave(device, law, kind):
    model = model_on(device, kind, False)
    arrivals = [
        Arrival(prompts=[random_bytes(n, n) for n in lengths], max_new=new, seed=seed, sampling=SAMPLINGS[seed % 2])
        for lengths, new, seed in (((21, 3), 30, 3), ((40,), 9, 1), ((0,), 50, 0), ((7, 7), 12, 5))
    ]
    session, steps = Session(graph_target(device, model, law, make_graphs(device))), []
    for arrival in arrivals:
        steps += session.admit([arrival])
        session.retire({0})
        for _ in range(3):
            steps += session.round()
    while session.num_live:
        steps += session.round()
    results = {step.row: step.result for step in steps if step.result is not None}
    row = 0
    for arrival in arrivals:
        options = {"max_new": arrival.max_new, "seed": arrival.seed, "sampling": arrival.sampling}
        expected = decode(make_target(model, law, BOS), arrival.prompts, **options)
        for symbols in expected.symbols:
            told = [symbol for step in steps if step.row == row for symbol in step.symbols.tolist()]
            assert told == symbols.tolist()[: len(told)]
            if row:
                assert results[row].symbols.tolist() == symbols.tolist()
            row += 1
    assert 0 not in results


@pytest.mark.parametrize("device", DEVICES)
def test_tokens_and_processors(device):
    """What has processors emits without a recording, and forwards are begun ahead all the same."""
    lm = gptj_toy(torch.float32)
    model = copy.deepcopy(lm.model).to("cuda" if device.startswith("cuda") else "cpu")
    bos, prompts = lm.tokenizer.opening(1), [np.arange(n, dtype=np.int64) for n in (3, 9)]
    graphs = make_graphs(device)
    for processor in (None, RepetitionPenalty(1.5)):
        for drafter in (None, LookupDrafter(4, min_match=1)):
            options = {"max_new": 20, "sampling": SAMPLINGS[1], "processor": processor, "drafter": drafter}
            expected = decode(make_target(model, "next", bos), prompts, **options)
            assert_same(decode(graph_target(device, model, "next", graphs, bos), prompts, **options), expected)


def test_interleaved_runs_have_their_own_graphs():
    """Two runs of one model at a time; what one replays does not show in the other."""
    model, lender = model_on("replayed", "chained", False), Lender(ReplayedGraphs)
    sessions = []
    for _ in range(2):
        target = lender.lend(lambda graphs: graph_target("replayed", model, "chain", graphs))
        sessions.append(Session(target))
        del target
    steps = [
        session.admit([Arrival(prompts=PROMPTS[:1], max_new=30, seed=seed, sampling=SAMPLINGS[1])])
        for seed, session in enumerate(sessions)
    ]
    while any(session.num_live for session in sessions):
        for told, session in zip(steps, sessions, strict=True):
            told += session.round()
    for seed, told in enumerate(steps):
        expected = decode(make_target(model, "chain", BOS), PROMPTS[:1], max_new=30, seed=seed, sampling=SAMPLINGS[1])
        assert [symbol for step in told for symbol in step.symbols.tolist()] == expected.symbols[0].tolist()
    del session, sessions
    gc.collect()
    assert len(lender._free) == 2


def test_an_emission_that_is_read_too_late_is_caught(monkeypatch):
    """Negative control: without its copy the books would get what the next forward emits."""
    monkeypatch.setattr("bytelm.decoding.begun.to_host", lambda tensor, *, copied: tensor)
    model = model_on("replayed", "chained", False)
    expected = decode(make_target(model, "chain", BOS), PROMPTS[:1], max_new=30)
    found = decode(graph_target("replayed", model, "chain", ReplayedGraphs()), PROMPTS[:1], max_new=30)
    assert found.symbols[0].tolist() != expected.symbols[0].tolist()


def test_graphs_are_of_the_weights_where_they_are():
    """A model whose weights moved has other graphs; what is not compiled has none."""
    lm = gptj_toy(torch.float32)
    lender = lm._lender()
    assert lm._lender() is lender
    weight = lm.model.norm.weight
    weight.data = weight.data.clone()
    assert lm._lender() is not lender
    assert lm.make_target("next").graphs is None
