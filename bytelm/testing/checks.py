"""Checks of a decoder by equality: greedy output, nats, forwards, seeds, stops and limits. None of them raises."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bytelm.decoding import Sampling
from bytelm.testing.jobs import Answer, Decoder, Job, proposals
from bytelm.testing.reference import Reference, decode_reference
from bytelm.testing.reports import NOTHING, Findings, Lacks, Level, Report, reporting
from bytelm.testing.toy import ToyLaw

TOLERANCE_NATS = 1e-4
"""Absolute difference of nats; a decoder may compute them in float32."""

PROMPTS = ((1, 2, 3), (4,), (6, 5, 4, 3, 2, 1, 0), (2, 2), (5, 1), (3,), (0, 0, 0, 1))


class Drafting(NamedTuple):
    """Ways of drafting to go through.

    Attributes:
        plans: of proposals, see :func:`bytelm.testing.proposals`.
        numbers: of drafted symbols.
        distances: of draft models from the law.
    """

    plans: Sequence[str] = ("1", "01110")
    numbers: Sequence[int] = (4,)
    distances: Sequence[float] = (0.7,)


_EVERY: dict[Level, Drafting] = {
    "quick": Drafting(("1", "random", "01110"), (1, 4, 16), (0.7,)),
    "full": Drafting(("1", "random", "01110", "0000000011111111"), range(17), (0.5, 3.0)),
}
_SOME: dict[Level, Drafting] = {
    "quick": Drafting(),
    "full": Drafting(("1", "110", "01110"), (1, 4, 9), (0.5,)),
}
_BATCHES: dict[Level, Sequence[int]] = {"quick": (1, 7), "full": (1, 2, 7, 32)}


def check_greedy(decoder: Decoder, lacks: Lacks = NOTHING, level: Level = "quick") -> Report:
    """Greedy output is that of one symbol at a time without cache or draft, for every draft, batch and limit."""

    def body(findings: Findings) -> None:
        law, decode = ToyLaw.random(17, seed=1), findings.rows(decoder)
        for num_rows, max_new in itertools.product(_BATCHES[level], (2, 23)):
            job = make_job(law, num_rows, max_new)
            expected = [decode_reference(law, prompt, Sampling(), max_new).symbols for prompt in job.prompts]
            for name, drafted in drafting(findings, job, expected, _EVERY[level]):
                _compare(findings, name, decode(drafted), expected)

    return reporting("greedy", body, lacks)


def check_seed_identity(
    decoder: Decoder,
    lacks: Lacks = NOTHING,
    level: Level = "quick",
    law: ToyLaw | None = None,
    ways: Drafting | None = None,
) -> Report:
    """Drawn output depends on the row's seed alone; and other seeds give other output.

    Every draft, draft length and batch gives what plain decoding of the row by itself gives.

    Args:
        decoder: under test.
        lacks: what it cannot do.
        level: how many cases.
        law: the model; an adapter of a real model may ignore it, but for its number of symbols.
        ways: of drafting; those of the level by default.
    """

    def body(findings: Findings) -> None:
        findings.need("seeds")
        findings.need("sampling")
        decode, model = findings.rows(decoder), law or ToyLaw.random(17, seed=1)
        temperatures = (1.0, 0.6)
        batches = itertools.product(_BATCHES[level], temperatures)
        for num_rows, temperature in batches if level == "full" else zip(_BATCHES[level], temperatures, strict=True):
            job = make_job(model, num_rows, 23, temperature)
            if temperature != 1 and findings.has("top_k"):
                job = dataclasses.replace(job, top_k=model.vocab // 2)
            expected = [decode(job.alone(row))[0].symbols for row in range(num_rows)]
            twins = dataclasses.replace(job, prompts=job.prompts[:1] * 8, seeds=tuple(range(40, 48)))
            findings.require(len({a.symbols for a in decode(twins)}) > 1, "eight seeds give one output")
            for name, drafted in drafting(findings, job, expected, ways or _EVERY[level]):
                _compare(findings, name, decode(drafted), expected)

    return reporting("seed identity", body, lacks)


def check_nats(decoder: Decoder, lacks: Lacks = NOTHING) -> Report:
    """The nats of an answer are those of the law for its symbols, before temperature and truncation."""

    def body(findings: Findings) -> None:
        law, decode = ToyLaw.random(9, seed=2, scale=1.0), findings.rows(decoder)
        for temperature in (0.0, 0.5, 1.5) if findings.has("sampling") else (0.0,):
            job = make_job(law, 3, 30, temperature)
            for name, drafted in drafting(findings, job, [a.symbols for a in decode(job)], _SOME["quick"]):
                for prompt, answer in zip(job.prompts, decode(drafted), strict=True):
                    if answer.nats is None:
                        findings.skip("the decoder tells no nats")
                    else:
                        _compare_nats(findings, name, law, prompt, answer.symbols, answer.nats)

    return reporting("nats", body, lacks)


def check_forwards(decoder: Decoder, lacks: Lacks = NOTHING) -> Report:
    """Drafts that are right save forwards, and those that are wrong cost none: the least that N drafts allow."""

    def body(findings: Findings) -> None:
        findings.need("proposals")
        law, num_draft, steps = ToyLaw.random(17, seed=1), 4, 6
        job = make_job(law, 1, 1 + steps * (num_draft + 1))
        expected = [decode_reference(law, job.prompts[0], Sampling(), job.max_new).symbols]
        for plan, most in (("1", 1 + steps), ("0", job.max_new)):
            told = proposals(plan, expected, law.vocab)
            found = decoder(dataclasses.replace(job, num_draft=num_draft, proposals=told))[0].forwards
            if found is None:
                findings.skip("the decoder does not tell its forwards")
            else:
                findings.case()
                findings.require(found <= most, f"plan {plan}: found {found} forwards, expected at most {most}")

    return reporting("forwards", body, lacks)


def check_stops(decoder: Decoder, lacks: Lacks = NOTHING, level: Level = "quick") -> Report:
    """Rows end at the symbol where a stop is complete or the limit is reached, at every offset inside a step.

    What follows is neither in the answer nor streamed, and other rows go on. Some prompts repeat what will follow them,
    so that drafts hold that a decoder finds in the text.
    """

    def body(findings: Findings) -> None:
        law, decode = ToyLaw.random(31, seed=8), findings.rows(decoder)
        job = make_job(law, 3, 24)
        plain = _plain(job)
        jobs = [dataclasses.replace(job, max_new=limit) for limit in range(1, 8 if level == "quick" else 12)]
        if findings.has("stops"):
            offsets = range(7 if level == "quick" else 16)
            again = dataclasses.replace(job, prompts=tuple((*p, *s) for p, s in zip(job.prompts, plain, strict=True)))
            jobs += _with_every_stop(job, offsets, (1, 3)) + _with_every_stop(again, offsets, (3,))
        for one in jobs:
            expected = [_with_stops(law, prompt, one) for prompt in one.prompts]
            for name, drafted in drafting(findings, one, _plain(one), _SOME[level]):
                _compare_ends(findings, f"stops {one.stops}, limit {one.max_new}, {name}", decode(drafted), expected)

    return reporting("stops", body, lacks)


def _plain(job: Job) -> list[Sequence[int]]:
    return [decode_reference(job.law, prompt, Sampling(), 24).symbols for prompt in job.prompts]


def _with_every_stop(job: Job, ends: Sequence[int], lengths: Sequence[int]) -> list[Job]:
    """The job with a stop that ends its first row at each of ``ends``, and another that ends the second."""
    first, second = _plain(job)[:2]
    return [
        dataclasses.replace(job, stops=(tuple(first[end + 1 - length : end + 1]), (second[5],)))
        for end, length in itertools.product(ends, lengths)
        if end + 1 >= length
    ]


def make_job(law: ToyLaw, num_rows: int, max_new: int, temperature: float = 0.0) -> Job:
    """Rows of different prompts and seeds, to decode plainly."""
    prompts = tuple(PROMPTS[row % len(PROMPTS)] for row in range(num_rows))
    seeds = tuple((2**40 + 77 * row) % (2**64 - row) for row in range(num_rows))
    return Job(law=law, prompts=prompts, max_new=max_new, seeds=seeds, temperature=temperature)


def drafting(findings: Findings, job: Job, plain: Sequence[Sequence[int]], ways: Drafting) -> Iterator[tuple[str, Job]]:
    """The job with every way of drafting that the decoder has, and how to call it; first with none.

    Args:
        findings: of the running check.
        job: without drafting.
        plain: what plain decoding of it gives, for proposals.
        ways: to draft.
    """
    findings.case()
    yield f"{len(job.prompts)} rows, no draft", job
    for num_draft in ways.numbers:
        named = f"{len(job.prompts)} rows, {num_draft} drafted by"
        drafted = dataclasses.replace(job, num_draft=num_draft)
        for plan in ways.plans if num_draft and findings.has("proposals") else ():
            findings.case()
            yield f"{named} plan {plan}", dataclasses.replace(drafted, proposals=proposals(plan, plain, job.law.vocab))
        for distance in ways.distances if num_draft and findings.has("model") else ():
            findings.case()
            yield f"{named} a model", dataclasses.replace(drafted, draft_law=job.law.near(5, distance))


def _compare(findings: Findings, name: str, answers: Sequence[Answer], expected: Sequence[Sequence[int]]) -> None:
    findings.require(len(answers) == len(expected), f"{name}: {len(answers)} answers")
    for row, (answer, symbols) in enumerate(zip(answers, expected, strict=True)):
        if answer.symbols != tuple(symbols):
            at = next(
                (i for i, pair in enumerate(zip(answer.symbols, symbols, strict=False)) if pair[0] != pair[1]),
                min(len(answer.symbols), len(symbols)),
            )
            findings.require(
                False,
                f"{name}: row {row} differs from symbol {at} on: found {list(answer.symbols[at : at + 4])} of"
                f" {len(answer.symbols)}, expected {list(symbols[at : at + 4])} of {len(symbols)}",
            )


def _compare_nats(
    findings: Findings, name: str, law: ToyLaw, prompt: Sequence[int], symbols: Sequence[int], nats: Sequence[float]
) -> None:
    findings.require(len(nats) == len(symbols), f"{name}: {len(nats)} nats of {len(symbols)} symbols")
    history = list(prompt)
    for found, symbol in zip(nats, symbols, strict=True):
        error = abs(found + float(np.log(law.probabilities(history)[symbol])))
        findings.highest("worst", error)
        findings.require(error < TOLERANCE_NATS, f"{name}: nats off by {error:.2g}")
        history.append(symbol)


def _with_stops(law: ToyLaw, prompt: Sequence[int], job: Job) -> Reference:
    def stop(symbols: list[int]) -> bool:
        return any(tuple(symbols[-len(s) :]) == s for s in job.stops)

    return decode_reference(law, prompt, Sampling(), job.max_new, stop=stop)


def _compare_ends(findings: Findings, name: str, answers: Sequence[Answer], expected: Sequence[Reference]) -> None:
    _compare(findings, name, answers, [reference.symbols for reference in expected])
    for row, (answer, reference) in enumerate(zip(answers, expected, strict=True)):
        found = answer.finish
        findings.require(found == reference.finish, f"{name}: row {row} ended by {found}, not {reference.finish}")
        if answer.nats is not None:
            findings.require(len(answer.nats) == len(answer.symbols), f"{name}: row {row}: {len(answer.nats)} nats")
        if answer.pieces is None:
            findings.leave_out("pieces: the decoder does not stream")
            continue
        streamed = tuple(itertools.chain(*answer.pieces))
        findings.require(streamed == answer.symbols, f"{name}: row {row} streamed {len(streamed)} symbols")
        findings.require(all(answer.pieces), f"{name}: row {row} streamed an empty piece")
