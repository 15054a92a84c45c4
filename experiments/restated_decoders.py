"""Medusa's, EvaByte's and litgpt's rules, written from their description, as decoders under ``bytelm.testing``.

What their description leaves open is that of :class:`bytelm.testing.Speculative`: laws, cache, noise.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

from bytelm.testing import Answer, Job, Speculative
from bytelm.testing.bugs import Overshoot, RatioAtZero
from bytelm.testing.reports import Lacks
from bytelm.testing.speculative import Context, Distribution, Noise

EPSILON, ALPHA = 0.09, 0.3
"""Of typical acceptance (Cai et al. 2024, arXiv 2401.10774)."""

ONE_ROW: Lacks = {"batch": "it decodes one row", "seeds": "numbers are drawn in order of use"}

NO_STOPS: Lacks = {**ONE_ROW, "stops": "it looks for no stops"}

Draw = Callable[[], int]


def redraw(candidates: Sequence[int], draw: Draw) -> tuple[int, bool]:
    """Medusa's and EvaByte's sampling at one node: the symbol emitted, and whether it is an accepted draft.

    Every path draws a symbol of the law for itself, and stands if that is its own. Where none stands, the symbols drawn
    are forgotten and another one is drawn and emitted: the fault, for the first symbol drawn was the law's.

    Args:
        candidates: the drafted symbol of each path.
        draw: gives a symbol of the target's law.
    """
    standing = [symbol for symbol in candidates if draw() == symbol]
    return (standing[0], True) if standing else (draw(), False)


def is_typical(p: Distribution, symbol: int) -> bool:
    """Medusa's typical acceptance: p(x) > min(epsilon, alpha exp(-H(p)))."""
    entropy = -sum(x * math.log(x) for x in p if x > 0)
    return p[symbol] > min(EPSILON, ALPHA * math.exp(-entropy))


class Medusa(Speculative):
    """One path of the most probable drafts; sampled symbols are drawn again after a mismatch."""

    lacks: Lacks = ONE_ROW

    def draw_draft(self, q: Distribution, noise: Noise, position: int) -> int:
        """The most probable symbol."""
        return max(range(len(q)), key=q.__getitem__)

    def verify(
        self,
        job: Job,
        contexts: list[Context],
        drafted: list[int],
        laws_q: list[Distribution],
        noise: Noise,
        position: int,
    ) -> list[int]:
        """Accepted drafts, then a symbol drawn afresh."""
        new: list[int] = []
        for n, symbol in enumerate(drafted):
            emitted, accepted = self.at_node(self.law(job, contexts[n]), symbol, noise, position + n)
            new.append(emitted)
            if not accepted:
                return new
        return [*new, self.draw(self.law(job, contexts[len(drafted)]), noise, position + len(drafted))]

    def at_node(self, p: Distribution, symbol: int, noise: Noise, position: int) -> tuple[int, bool]:
        """What is emitted where ``symbol`` was drafted, and whether that is the draft."""
        return redraw([symbol], lambda: self.draw(p, noise, position))


class MedusaTypical(Medusa):
    """One path of the most probable drafts, accepted while they are typical."""

    def at_node(self, p: Distribution, symbol: int, noise: Noise, position: int) -> tuple[int, bool]:
        """At temperature 0 the law is one-hot, and what is typical is its symbol."""
        return (symbol, True) if is_typical(p, symbol) else (self.draw(p, noise, position), False)


class EvaByte(Overshoot, Medusa):
    """Medusa's sampling; stops and limits end the loop, and the whole of the last step is returned."""

    def cut(self, job: Job, generated: list[int], new: list[int]) -> tuple[int, str | None]:
        """All of the step."""
        finish = super().cut(job, generated, new)[1]
        return len(new), finish


class EvaByteCropped(EvaByte):
    """EvaByte's, cropped by its user to the limit: what is left is the law and the stops."""

    def decode_row(self, job: Job, row: int) -> Answer:
        """No more symbols than were asked for."""
        answer = super().decode_row(job, row)
        nats = None if answer.nats is None else answer.nats[: job.max_new]
        return dataclasses.replace(answer, symbols=answer.symbols[: job.max_new], nats=nats, pieces=None)


class Litgpt(RatioAtZero):
    """Rejection sampling with two faults: the prefill's symbol is not returned, and temperature 0 is not greedy.

    At temperature 0 the two models give their most probable symbols, but the ratio that accepts is that of their full
    probabilities: a draft that is not the target's choice stays where p >= q, and else with the chance p / q.
    """

    lacks: Lacks = NO_STOPS

    def decode_row(self, job: Job, row: int) -> Answer:
        """One symbol less than was asked for."""
        answer = super().decode_row(job, row)
        nats = None if answer.nats is None else answer.nats[1:]
        return dataclasses.replace(answer, symbols=answer.symbols[1:], nats=nats, pieces=None)


class LitgptRestored(RatioAtZero):
    """litgpt's, with the prefill's symbol: what is left is the fault at temperature 0."""

    lacks: Lacks = NO_STOPS
