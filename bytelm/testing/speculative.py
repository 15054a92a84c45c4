"""A small speculative decoder that can be read in one go. What the kit's seeded bugs are bugs of."""

import math
import random
from collections.abc import Sequence
from typing import Literal

from bytelm.testing.jobs import Answer, Job
from bytelm.testing.toy import ORDER

Distribution = Sequence[float]
Context = tuple[int, ...]


class Noise:
    """Random numbers of one row: a stream in order of use, and Gumbel noise by position."""

    def __init__(self, seed: int, vocab: int) -> None:
        self._stream, self._field, self._vocab = random.Random(seed), random.Random(seed + 2**40), vocab
        self._gumbel: list[list[float]] = []

    def uniform(self) -> float:
        """The next uniform number in [0, 1)."""
        return self._stream.random()

    def gumbel(self, position: int) -> list[float]:
        """Gumbel noise of every symbol at a position: the same whenever it is asked."""
        while len(self._gumbel) <= position:
            self._gumbel.append([-math.log(-math.log(self._field.random() or 0.5)) for _ in range(self._vocab)])
        return self._gumbel[position]


class Speculative:
    """Rejection sampling (Leviathan, Kalman and Matias 2023, algorithm 1), one row at a time, with a cache of symbols.

    At temperature 0 laws are one-hot, and the same rule is greedy decoding. The cache holds the symbols by position, as
    a key/value cache holds their keys: a forward writes the symbols it is run on and sees nothing but the cache.
    """

    def __call__(self, job: Job) -> list[Answer]:
        """Decode; a :data:`~bytelm.testing.Decoder`."""
        return [self.decode_row(job, row) for row in range(len(job.prompts))]

    def decode_row(self, job: Job, row: int) -> Answer:
        """One row: prefill, then rounds of draft, forward, verdict."""
        noise = Noise(self.seed_of(job, row), job.law.vocab)
        slots = [0] * ORDER
        generated: list[int] = []
        nats: list[float] = []
        pieces: list[tuple[int, ...]] = []
        finish: str | None = None
        drafted: list[int] = []
        laws_q: list[Distribution] = []
        last = list(job.prompts[row])
        begin, forwards = ORDER, 0
        while finish is None:
            contexts = self.forward(slots, begin, last + drafted)[len(last) - 1 :]
            forwards += 1
            new = self.verify(job, contexts, drafted, laws_q, noise, len(generated))
            told = [self.nats(job, context, symbol) for context, symbol in zip(contexts, new, strict=False)]
            kept, finish = self.cut(job, generated, new)
            pieces.append(tuple(self.streamed(new, kept)))
            generated, nats = generated + new[:kept], nats + told[:kept]
            begin = ORDER + len(job.prompts[row]) + len(generated) - 1
            last = generated[-1:]
            if finish is None:
                drafted, laws_q = self.draft(job, row, generated, noise)
        return self.close(generated, finish, nats, pieces, forwards)

    def seed_of(self, job: Job, row: int) -> int:
        """Seed of a row."""
        return job.seeds[row]

    def close(
        self, generated: list[int], finish: str, nats: list[float], pieces: list[tuple[int, ...]], forwards: int
    ) -> Answer:
        """The answer of a row."""
        why: Literal["length", "stop"] = "stop" if finish == "stop" else "length"
        return Answer(tuple(generated), why, tuple(nats), tuple(pieces), forwards)

    # The target -------------------------------------------------------------------------------------------------------

    def forward(self, slots: list[int], begin: int, symbols: Sequence[int]) -> list[Context]:
        """Write ``symbols`` at ``begin`` and tell, for each, the context that the law after it sees."""
        self.write(slots, begin, symbols)
        return [tuple(slots[end - ORDER : end]) for end in range(begin + 1, begin + 1 + len(symbols))]

    def write(self, slots: list[int], begin: int, symbols: Sequence[int]) -> None:
        """Put symbols into the cache, over what a rejected draft left there."""
        slots[begin : begin + len(symbols)] = symbols

    def law(self, job: Job, context: Context) -> Distribution:
        """The target's law after a context."""
        return job.law.probabilities(context, job.temperature, job.top_k)

    def nats(self, job: Job, context: Context, symbol: int) -> float:
        """-log p of a symbol under the law itself."""
        return -math.log(job.law.probabilities(context)[symbol])

    # The draft --------------------------------------------------------------------------------------------------------

    def draft(self, job: Job, row: int, generated: list[int], noise: Noise) -> tuple[list[int], list[Distribution]]:
        """Symbols to verify, and the distribution that each was drawn from."""
        if job.proposals is not None:
            symbols = list(job.proposals[row][len(generated) : len(generated) + job.num_draft])
            return symbols, [_one_hot(symbol, job.law.vocab) for symbol in symbols]
        drafted: list[int] = []
        laws_q: list[Distribution] = []
        for n in range(job.num_draft if job.draft_law is not None else 0):
            q = self.draft_law(job, [*job.prompts[row], *generated, *drafted])
            drafted.append(self.draw_draft(q, noise, len(generated) + n))
            laws_q.append(q)
        return drafted, laws_q

    def draft_law(self, job: Job, history: list[int]) -> Distribution:
        """The small model's law after a history."""
        assert job.draft_law is not None
        return job.draft_law.probabilities(history, job.temperature, job.top_k)

    def draw_draft(self, q: Distribution, noise: Noise, position: int) -> int:
        """A draft from the small model's law."""
        return self.draw(q, noise, position)

    # The verdict ------------------------------------------------------------------------------------------------------

    def verify(
        self,
        job: Job,
        contexts: list[Context],
        drafted: list[int],
        laws_q: list[Distribution],
        noise: Noise,
        position: int,
    ) -> list[int]:
        """The symbols that a forward gives: accepted drafts, then one of the target's own."""
        new: list[int] = []
        for n, symbol in enumerate(drafted):
            p = self.law(job, contexts[n])
            new.append(self.judge(p, laws_q[n], symbol, noise, position + n))
            if new[-1] != symbol:
                return new
        return [*new, self.draw(self.law(job, contexts[len(drafted)]), noise, position + len(drafted))]

    def judge(self, p: Distribution, q: Distribution, symbol: int, noise: Noise, position: int) -> int:
        """The symbol that comes of a draft."""
        if noise.uniform() < self.acceptance(p[symbol], q[symbol]):
            return symbol
        return self.draw(self.residual(p, q), noise, position)

    def acceptance(self, p: float, q: float) -> float:
        """Chance that a draft stays."""
        return min(1.0, p / q) if q > 0 else 1.0

    def residual(self, p: Distribution, q: Distribution) -> Distribution:
        """What is drawn instead of a rejected draft; p where rounding left nothing."""
        difference = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
        mass = sum(difference)
        return [x / mass for x in difference] if mass > 0 else p

    def draw(self, p: Distribution, noise: Noise, position: int) -> int:
        """A symbol from a distribution."""
        left = noise.uniform()
        for symbol, share in enumerate(p):
            left -= share
            if left < 0:
                return symbol
        return max(range(len(p)), key=p.__getitem__)

    # The end ----------------------------------------------------------------------------------------------------------

    def cut(self, job: Job, generated: list[int], new: list[int]) -> tuple[int, str | None]:
        """How many of the new symbols are kept, and why the row ends there, if it does."""
        for count in range(1, len(new) + 1):
            so_far = generated + new[:count]
            if any(tuple(so_far[-len(stop) :]) == stop for stop in job.stops):
                return count, "stop"
            if len(so_far) == job.max_new:
                return count, "length"
        return len(new), None

    def streamed(self, new: list[int], kept: int) -> list[int]:
        """What is streamed of the new symbols."""
        return new[:kept]


class Coupled(Speculative):
    """The coupled rule: argmax(log p + noise of the position), to which the draft is not shown (arXiv 2408.07978).

    The small model drafts with the same noise. The output is a function of the seed, whatever is drafted.
    """

    def judge(self, p: Distribution, q: Distribution, symbol: int, noise: Noise, position: int) -> int:
        """The law's own symbol."""
        return self.draw(p, noise, position)

    def draw(self, p: Distribution, noise: Noise, position: int) -> int:
        """By the Gumbel-max theorem, a symbol with the distribution p."""
        if 1.0 in p:
            return list(p).index(1.0)
        scores = [math.log(x) + g if x > 0 else -math.inf for x, g in zip(p, noise.gumbel(position), strict=True)]
        return max(range(len(p)), key=scores.__getitem__)


def _one_hot(symbol: int, vocab: int) -> Distribution:
    return [float(s == symbol) for s in range(vocab)]
