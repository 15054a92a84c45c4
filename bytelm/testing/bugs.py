"""Decoders with one bug each, most of them seen in published code: what the kit must fail, and by which checks."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from bytelm.testing.jobs import Answer, Job
from bytelm.testing.speculative import Context, Coupled, Distribution, Noise, Speculative
from bytelm.testing.toy import ORDER


class OffByOne(Speculative):
    """Judges every draft but the first in the context of the one before."""

    def forward(self, slots: list[int], begin: int, symbols: Sequence[int]) -> list[Context]:
        """The contexts a place late; a prefill is left alone."""
        contexts = super().forward(slots, begin, symbols)
        return contexts if begin == ORDER else contexts[:1] + contexts[:-1]


class BonusFromWrongRow(Speculative):
    """After a draft that held to its end, draws the further symbol from the law of the last draft."""

    def verify(
        self,
        job: Job,
        contexts: list[Context],
        drafted: list[int],
        laws_q: list[Distribution],
        noise: Noise,
        position: int,
    ) -> list[int]:
        """With the last context twice."""
        if drafted:
            contexts = [*contexts[: len(drafted)], contexts[len(drafted) - 1]]
        return super().verify(job, contexts, drafted, laws_q, noise, position)


class ResidualIsLaw(Speculative):
    """Draws from the law itself instead of a rejected draft."""

    def residual(self, p: Distribution, q: Distribution) -> Distribution:
        """The law."""
        return p


class DraftTemperature(Speculative):
    """Divides by the draft's probability at another temperature than it was drawn at."""

    factor = 1.5

    def draft(self, job: Job, row: int, generated: list[int], noise: Noise) -> tuple[list[int], list[Distribution]]:
        """The draft, and wrong distributions of it."""
        drafted, laws_q = super().draft(job, row, generated, noise)
        return drafted, [_tempered(q, self.factor) for q in laws_q]


class Lenient(Speculative):
    """Accepts a little more than the rule does."""

    factor = 1.3

    def acceptance(self, p: float, q: float) -> float:
        """Too much."""
        return min(1.0, self.factor * super().acceptance(p, q))


class AcceptAll(Speculative):
    """Accepts every draft."""

    def judge(self, p: Distribution, q: Distribution, symbol: int, noise: Noise, position: int) -> int:
        """The draft."""
        return symbol


class Redraw(Coupled):
    """Throws the law's symbol away where it is not the draft, and draws another (Medusa, EvaByte)."""

    def judge(self, p: Distribution, q: Distribution, symbol: int, noise: Noise, position: int) -> int:
        """A second chance for the draft."""
        own = self.draw(p, noise, position)
        return own if own == symbol else self.draw(p, noise, position + 50)


class SharedNumber(Speculative):
    """Accepts with the random number that the draft was drawn with."""

    def draw_draft(self, q: Distribution, noise: Noise, position: int) -> int:
        """Draw from the field of noise that :meth:`judge` uses too."""
        scores = [math.log(x) + g if x > 0 else -math.inf for x, g in zip(q, noise.gumbel(position), strict=True)]
        return max(range(len(q)), key=scores.__getitem__)

    def judge(self, p: Distribution, q: Distribution, symbol: int, noise: Noise, position: int) -> int:
        """The rule, with the noise of the draft."""
        used = math.exp(-math.exp(-noise.gumbel(position)[symbol]))
        if used < self.acceptance(p[symbol], q[symbol]):
            return symbol
        return self.draw(self.residual(p, q), noise, position)


class NoiseTwice(Coupled):
    """Uses the same noise at two neighbouring positions."""

    def draw(self, p: Distribution, noise: Noise, position: int) -> int:
        """With the noise of every other position."""
        return super().draw(p, noise, position // 2)


class StaleSlot(Coupled):
    """Leaves a rejected draft in the cache instead of overwriting it."""

    def write(self, slots: list[int], begin: int, symbols: Sequence[int]) -> None:
        """Write, but not over a symbol that is there."""
        stale = slots[begin : begin + 1]
        super().write(slots, begin, symbols)
        slots[begin : begin + len(stale)] = stale


class DropFirst(Speculative):
    """Loses the symbol of the prefill (litgpt)."""

    def decode_row(self, job: Job, row: int) -> Answer:
        """All but the first of one symbol more."""
        answer = super().decode_row(dataclasses.replace(job, max_new=job.max_new + 1), row)
        nats = None if answer.nats is None else answer.nats[1:]
        return dataclasses.replace(answer, symbols=answer.symbols[1:], nats=nats, pieces=None)


class RatioAtZero(Speculative):
    """At temperature 0 takes the largest logits, but accepts by the ratio of full probabilities (litgpt)."""

    def decode_row(self, job: Job, row: int) -> Answer:
        """With laws that are not one-hot."""
        self._greedy = job.temperature == 0
        return super().decode_row(dataclasses.replace(job, temperature=job.temperature or 1.0), row)

    def draw(self, p: Distribution, noise: Noise, position: int) -> int:
        """The most probable symbol, if that is what was asked for."""
        return max(range(len(p)), key=p.__getitem__) if self._greedy else super().draw(p, noise, position)


class StopAtStepEnds(Speculative):
    """Looks for stops only where a step ends (transformers, custom criteria)."""

    def cut(self, job: Job, generated: list[int], new: list[int]) -> tuple[int, str | None]:
        """The length limit inside a step, stops at its end."""
        kept, finish = super().cut(dataclasses.replace(job, stops=()), generated, new)
        so_far = generated + new[:kept]
        return kept, "stop" if any(tuple(so_far[-len(stop) :]) == stop for stop in job.stops) else finish


class Overshoot(Speculative):
    """Looks at the length limit only where a step ends."""

    def cut(self, job: Job, generated: list[int], new: list[int]) -> tuple[int, str | None]:
        """Stops inside a step, the length limit at its end."""
        kept, finish = super().cut(dataclasses.replace(job, max_new=10**9), generated, new)
        return kept, finish or ("length" if len(generated) + kept >= job.max_new else None)


class StreamPastStop(Speculative):
    """Streams what was accepted after a stop."""

    def streamed(self, new: list[int], kept: int) -> list[int]:
        """All of the step."""
        return new


class NoiseByRound(Coupled):
    """Keys its noise by the round, so that the output of a seed depends on what was accepted (TensorRT-LLM)."""

    def decode_row(self, job: Job, row: int) -> Answer:
        """With a number of rounds."""
        self._rounds = 0
        return super().decode_row(job, row)

    def verify(
        self,
        job: Job,
        contexts: list[Context],
        drafted: list[int],
        laws_q: list[Distribution],
        noise: Noise,
        position: int,
    ) -> list[int]:
        """Rounds begin 18 positions apart."""
        self._rounds += 1
        return super().verify(job, contexts, drafted, laws_q, noise, 18 * self._rounds)


class SeedByPlace(Coupled):
    """A row's noise depends on its place in the batch, though it has a seed of its own."""

    def seed_of(self, job: Job, row: int) -> int:
        """The seed and the place."""
        return job.seeds[row] + 1000 * row


class SeedIgnored(Coupled):
    """Gives every seed the same noise."""

    def seed_of(self, job: Job, row: int) -> int:
        """One number."""
        return 7


class NatsAfterTemperature(Speculative):
    """Tells -log p after temperature and truncation instead of the law's own."""

    def nats(self, job: Job, context: Context, symbol: int) -> float:
        """Of the wrong law."""
        return -math.log(self.law(job, context)[symbol])


class Wasteful(Coupled):
    """Drops the last draft that held, so that nothing is wrong but the speed."""

    def verify(
        self,
        job: Job,
        contexts: list[Context],
        drafted: list[int],
        laws_q: list[Distribution],
        noise: Noise,
        position: int,
    ) -> list[int]:
        """The first symbol alone."""
        return super().verify(job, contexts, drafted, laws_q, noise, position)[:1]


class Bug(NamedTuple):
    """A wrong decoder and the checks that must fail it; others may too."""

    decoder: type[Speculative]
    checks: tuple[str, ...]


BUGS: tuple[Bug, ...] = (
    Bug(OffByOne, ("greedy", "distribution")),
    Bug(BonusFromWrongRow, ("greedy", "distribution")),
    Bug(ResidualIsLaw, ("algebra", "distribution")),
    Bug(DraftTemperature, ("distribution",)),
    Bug(Lenient, ("algebra", "distribution")),
    Bug(AcceptAll, ("greedy", "distribution")),
    Bug(Redraw, ("distribution", "seed identity")),
    Bug(SharedNumber, ("distribution",)),
    Bug(NoiseTwice, ("distribution",)),
    Bug(StaleSlot, ("greedy", "distribution", "seed identity")),
    Bug(DropFirst, ("greedy", "distribution", "stops")),
    Bug(RatioAtZero, ("greedy",)),
    Bug(StopAtStepEnds, ("stops",)),
    Bug(Overshoot, ("greedy", "stops")),
    Bug(StreamPastStop, ("stops",)),
    Bug(NoiseByRound, ("seed identity",)),
    Bug(SeedByPlace, ("seed identity",)),
    Bug(SeedIgnored, ("distribution", "seed identity")),
    Bug(NatsAfterTemperature, ("nats",)),
    Bug(Wasteful, ("forwards",)),
)
"""Seeded bugs, each with the checks that catch it."""


def _tempered(q: Distribution, temperature: float) -> Distribution:
    powers = [x ** (1 / temperature) for x in q]
    return [x / sum(powers) for x in powers]
