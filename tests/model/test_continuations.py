"""Continuations scored through the cache, against full forwards, position by position."""

import numpy as np
import pytest
from support import BOS, LAWS, Uncached, random_bytes, tiny_model

from bytelm.decoding import decode
from bytelm.errors import DecodingError
from bytelm.model.continuations import context_room, score_continuations
from bytelm.model.laws import score_symbols
from bytelm.model.targets import make_target


def rows():
    """Contexts of every phase, an empty one, and some that several continuations share."""
    contexts = [random_bytes(n, seed=n) for n in (0, 1, 9, 14, 14, 14, 3, 30, 30)]
    continuations = [random_bytes(n, seed=50 + n) for n in (5, 1, 4, 8, 13, 0, 27, 2, 7)]
    return contexts, continuations


@pytest.mark.parametrize(("law", "kind", "tables"), LAWS)
def test_scores_are_those_of_full_forwards(law, kind, tables):
    model = tiny_model(kind, tables)
    contexts, continuations = rows()
    found = dict(score_continuations(make_target(model, law, BOS), contexts, continuations, 2))
    assert sorted(found) == list(range(len(contexts)))
    uncached = Uncached(model)
    for i, (context, continuation) in enumerate(zip(contexts, continuations, strict=True)):
        whole = np.concatenate((BOS, context, continuation)).tolist()
        start = len(BOS) + len(context)
        logits = [uncached.logits(law, whole[:end], start) for end in range(start, len(whole))]
        nats = [-row.double().log_softmax(-1)[s].item() for row, s in zip(logits, continuation, strict=True)]
        np.testing.assert_allclose(found[i].nats, nats, atol=2e-5)  # worst seen 9e-6
        best = [int(row.argmax()) for row in logits]
        assert found[i].greedy.tolist() == [b == s for b, s in zip(best, continuation, strict=True)]


@pytest.mark.parametrize(("law", "kind", "tables"), LAWS)
def test_scores_are_those_of_scoring(law, kind, tables):
    model = tiny_model(kind, tables)
    contexts, continuations = rows()
    whole = [np.concatenate((BOS, *both)) for both in zip(contexts, continuations, strict=True)]
    expected = score_symbols(model, law, whole, [len(BOS) + len(context) for context in contexts])
    for max_rows in (1, 8):
        found = dict(score_continuations(make_target(model, law, BOS), contexts, continuations, max_rows))
        for i, nats in enumerate(expected):
            np.testing.assert_allclose(found[i].nats, nats, atol=2e-5)


@pytest.mark.parametrize(("law", "kind", "tables"), LAWS[:4])
def test_what_the_decoder_writes_is_greedy_and_nothing_else(law, kind, tables):
    model = tiny_model(kind, tables)
    prompts = [random_bytes(n, seed=n) for n in (6, 11)]
    written = decode(make_target(model, law, BOS), prompts, max_new=9).symbols
    changed = [row.copy() for row in written]
    for row in changed:
        row[7] ^= 1
    found = dict(score_continuations(make_target(model, law, BOS), prompts * 2, [*written, *changed]))
    assert all(found[i].greedy.all() for i in (0, 1))
    assert all(found[i].greedy[:7].all() and not found[i].greedy[7] for i in (2, 3))


def test_a_shared_context_is_read_once(monkeypatch):
    model = tiny_model()
    lengths = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model),
        "forward",
        lambda self, windows, view=None: lengths.append(windows.numel()) or forward(self, windows, view),
    )
    context = random_bytes(96)
    list(score_continuations(make_target(model, "chain", BOS), [context] * 4, [random_bytes(6, s) for s in range(4)]))
    assert lengths == [100, 4 * 4]


def test_the_context_is_filled_and_not_passed():
    model = tiny_model(context=64)
    for law in ("chain", "next"):
        target = make_target(model, law, BOS)
        room = context_room(target, 9)
        assert room == 64 - 4 - 8
        ((_, scored),) = score_continuations(target, [random_bytes(room)], [random_bytes(9)])
        assert np.isfinite(scored.nats).all()
        with pytest.raises(DecodingError, match=f"continuation 1: found {room + 1} symbols of context and 9"):
            list(score_continuations(target, [random_bytes(2), random_bytes(room + 1)], [random_bytes(9)] * 2))


def test_rows_that_do_not_fit_together_are_read_apart():
    """A long context with a short continuation, beside the reverse, in the smallest context that holds each alone."""
    model = tiny_model(context=64)
    target = make_target(model, "next", BOS)
    contexts, continuations = [random_bytes(58), random_bytes(3)], [random_bytes(2), random_bytes(50)]
    together = dict(score_continuations(target, contexts, continuations))
    for i in range(2):
        ((_, alone),) = score_continuations(target, contexts[i : i + 1], continuations[i : i + 1])
        np.testing.assert_allclose(together[i].nats, alone.nats, atol=1e-5)
