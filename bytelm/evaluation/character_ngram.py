"""Character n-gram models: the rivals that every byte model has to beat on the same text."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from bytelm.errors import ConfigError

NUM_SCALARS = 1_112_064
"""Unicode scalar values: the lowest order spreads its mass evenly over them, so that every text has a likelihood."""

_START = ""


class CharacterNgram:
    """An interpolated character n-gram model (Witten and Bell 1991, method C; Chen and Goodman 1999, equation 17).

    ``p(c | h) = (n(h c) + t(h) p(c | h')) / (n(h) + t(h))`` with t(h) the distinct characters seen after h, and h' the
    context without its first character; below order 1 the uniform law over all Unicode scalar values.

    Args:
        order: 1 for unigrams, 3 for trigrams.
    """

    def __init__(self, order: int) -> None:
        if order < 1:
            raise ConfigError(f"order: found {order}, expected at least 1")
        self.order = order
        self._counts: list[defaultdict[tuple[str, ...], Counter[str]]] = [defaultdict(Counter) for _ in range(order)]

    def fit(self, texts: Iterable[str]) -> "CharacterNgram":
        """Add the characters of ``texts`` to the counts; contexts begin anew with each text."""
        for text in texts:
            padded = (_START,) * (self.order - 1) + tuple(text)
            for i in range(self.order - 1, len(padded)):
                for n, counts in enumerate(self._counts):
                    counts[padded[i - n : i]][padded[i]] += 1
        self._totals = [{h: (c.total(), len(c)) for h, c in counts.items()} for counts in self._counts]
        return self

    def probability(self, character: str, context: Sequence[str]) -> float:
        """p(character | context); as much of the context as the order allows is used, its last character last."""
        p = 1 / NUM_SCALARS
        for n, counts in enumerate(self._counts):
            h = tuple(context[len(context) - n :]) if n <= len(context) else None
            if h is None or h not in counts:
                break
            total, distinct = self._totals[n][h]
            p = (counts[h][character] + distinct * p) / (total + distinct)
        return p

    def nats(self, text: str) -> float:
        """``-log p(text)`` in nats, every character once; the end of the text is not scored."""
        padded = (_START,) * (self.order - 1) + tuple(text)
        begin = self.order - 1
        return -math.fsum(
            math.log(self.probability(padded[i], padded[i - begin : i])) for i in range(begin, len(padded))
        )

    def bits_per_char(self, texts: Iterable[str]) -> float:
        """Bits per character over all texts."""
        nats, characters = 0.0, 0
        for text in texts:
            nats += self.nats(text)
            characters += len(text)
        return nats / math.log(2) / characters
