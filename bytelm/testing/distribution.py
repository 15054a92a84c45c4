"""The law of the output: exactly for the rule of acceptance, and by significance tests through the whole decoder."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bytelm.testing.jobs import Decoder, Job, proposals
from bytelm.testing.reports import NOTHING, Findings, Lacks, Level, Report, reporting
from bytelm.testing.significance import chi_square_p, total_variation
from bytelm.testing.toy import ToyLaw

ALPHA = 1e-6
"""Chance that one chi-square test fails a decoder that is right."""

LENGTHS = {3: 6, 2: 10}
"""Symbols looked at, by the number of symbols of the toy law: 729 and 1024 cells."""

ROWS = {"quick": 3_000, "full": 30_000}

Probabilities = NDArray[np.float64]


def check_algebra(
    acceptance: Callable[[Probabilities, Probabilities], Probabilities],
    residual: Callable[[Probabilities, Probabilities], Probabilities],
    vocab: int = 11,
) -> Report:
    """Rejection sampling emits the law: q a + (1 - sum of q a) r = p in float64 to 1e-12, whatever p and q.

    Leviathan, Kalman and Matias 2023 (arXiv 2211.17192), appendix A.1, with disjoint supports, p = q, one-hot and
    truncated laws among them.

    Args:
        acceptance: ``(p, q)`` of (V,) each to the chance a (V,) that each symbol stays, if it was drafted.
        residual: ``(p, q)`` to the distribution r (V,) of what replaces a rejected symbol.
        vocab: V.
    """

    def body(findings: Findings) -> None:
        for name, p, q in _pairs(vocab):
            findings.case()
            a, r = np.asarray(acceptance(p, q)), np.asarray(residual(p, q))
            findings.require(bool(np.isfinite(r).all() and (r >= 0).all()), f"{name}: the residual is {r}")
            findings.require(abs(r.sum() - 1) < 1e-12, f"{name}: the residual sums to {r.sum()}, expected 1")
            drafted = q > 0
            findings.require(
                bool(((a[drafted] >= 0) & (a[drafted] <= 1)).all()), f"{name}: a chance outside 0 to 1: {a}"
            )
            kept = np.where(drafted, q * np.where(drafted, a, 0), 0)
            error = float(np.abs(kept + (1 - kept.sum()) * r - p).max())
            findings.highest("worst", error)
            findings.require(error < 1e-12, f"{name}: off the law by {error:.2g}, expected less than 1e-12")

    return reporting("algebra", body, NOTHING)


def _pairs(vocab: int) -> list[tuple[str, Probabilities, Probabilities]]:
    rng = np.random.default_rng(5)

    def truncated(p: Probabilities, count: int) -> Probabilities:
        kept = np.where(p >= np.sort(p)[-count], p, 0)
        return kept / kept.sum()

    pairs = []
    for concentration in (0.05, 0.3, 1.0, 10.0):
        for _ in range(25):
            p, q = (rng.dirichlet(np.full(vocab, concentration)) for _ in range(2))
            pairs += [("random", p, q), ("truncated law", truncated(p, 3), q), ("truncated draft", p, truncated(q, 2))]
            pairs += [("equal", p, p.copy()), ("both truncated", truncated(p, 4), truncated(q, 4))]
    p, left = rng.dirichlet(np.ones(vocab)), np.arange(vocab) < vocab // 2
    halves = [np.where(side, p, 0) / p[side].sum() for side in (left, ~left)]
    pairs.append(("disjoint", halves[0], halves[1]))
    for symbol, other in itertools.product(range(3), repeat=2):
        one, two = np.eye(vocab)[symbol], np.eye(vocab)[other]
        pairs += [("one-hot", one, two), ("one-hot law", one, p), ("one-hot draft", p, two)]
    return pairs


class _Case(NamedTuple):
    """One chi-square test: how to draw and how to draft."""

    num_draft: int
    temperature: float = 1.0
    top_k: int | None = None
    draft: str = "model"
    vocab: int = 3


_CASES: dict[Level, Sequence[_Case]] = {
    "quick": (_Case(3), _Case(2, 0.7), _Case(2, draft="random"), _Case(4, 1.3, 2), _Case(4, vocab=2)),
    "full": (
        *(_Case(num_draft) for num_draft in (0, 1, 3, 5)),
        *(_Case(num_draft, vocab=2) for num_draft in (1, 8)),
        *(_Case(3, temperature, draft=draft) for temperature in (0.5, 1.5) for draft in ("model", "random")),
        *(_Case(4, 0.8, 2, draft) for draft in ("model", "equal", "random")),
    ),
}


def check_distribution(
    decoder: Decoder, lacks: Lacks = NOTHING, level: Level = "quick", rows: int | None = None
) -> Report:
    """Sampled output has the law: chi-square over the joint distribution of its first six or ten symbols.

    The toy model has three or two symbols, each of which depends on the two before it: errors of context and of
    position show, which marginals hide. Each row holds a prefill, drafts that held and failed, and the symbol after a
    whole draft that held. Each test fails a decoder that is right once in 1 / :data:`ALPHA` choices of seeds.
    Figures: the smallest p-value, and the largest total variation with what chance makes it.

    Args:
        decoder: under test.
        lacks: what it cannot do.
        level: how many cases.
        rows: of each case, for a slow decoder; None for :data:`ROWS` of the level. Fewer see less.
    """
    num_rows = rows or ROWS[level]

    def body(findings: Findings) -> None:
        findings.need("sampling")
        findings.figures["rows"] = num_rows
        for case in _CASES[level]:
            if case.top_k is not None and not findings.has("top_k"):
                continue
            if case.num_draft and not findings.has("proposals" if case.draft == "random" else "model"):
                continue
            _test(findings, findings.rows(decoder), _job(case, num_rows), case)

    return reporting("distribution", body, lacks)


def _job(case: _Case, rows: int) -> Job:
    law, length = ToyLaw.random(case.vocab, seed=3, scale=1.0), LENGTHS[case.vocab]
    draft_law = {"model": law.near(4, 1.0), "equal": law}.get(case.draft)
    told = None
    if case.draft == "random":
        told = proposals("random", [()] * rows, case.vocab, ahead=2 * length)
    return Job(
        law=law,
        prompts=((1, 0),) * rows,
        max_new=length,
        seeds=tuple(range(rows)),
        temperature=case.temperature,
        top_k=case.top_k,
        num_draft=case.num_draft,
        draft_law=draft_law,
        proposals=told,
    )


def _test(findings: Findings, decoder: Decoder, job: Job, case: _Case) -> None:
    findings.case()
    vocab, length = case.vocab, job.max_new
    symbols = [answer.symbols for answer in decoder(job)]
    wrong = next((row for row in symbols if len(row) != length), None)
    findings.require(wrong is None, f"{case}: {wrong} is not {length} symbols")
    cells = np.array(symbols) @ vocab ** np.arange(length - 1, -1, -1)
    counts = np.bincount(cells, minlength=vocab**length)
    joint = job.law.joint(job.prompts[0], length, job.temperature, job.top_k)
    p_value, (distance, by_chance) = chi_square_p(counts, joint), total_variation(counts, joint)
    findings.lowest("p", p_value)
    if distance > findings.figures.get("tv", 0.0):
        findings.figures |= {"tv": distance, "tv_by_chance": by_chance}
    findings.require(
        p_value > ALPHA, f"{case}: p-value {p_value:.2g}, expected more than {ALPHA:g}; total variation {distance:.3g}"
    )
