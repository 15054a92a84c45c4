"""Likelihoods of models with different symbols under the same conditions: windows and contexts in characters."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bytelm.errors import DecodingError, EncodingError
from bytelm.hub import LanguageModel, Score

_MOST_LOGITS = 1 << 25


@dataclass(frozen=True)
class TextWindow:
    """Some characters of a document, and those before them that a model reads first.

    Attributes:
        place: of the document, for messages.
        begin: index of the first character of ``text`` in the document.
        context: what stands before it, at most as many characters as were asked for.
        text: what is scored.
    """

    place: str
    begin: int
    context: str
    text: str


def cut_windows(place: str, text: str, window: int, context: int) -> list[TextWindow]:
    """Windows of ``window`` characters (the last may be shorter) whose texts put together are the document.

    Args:
        place: of the document.
        text: the document.
        window: characters, at least 1.
        context: characters before each window that are read; the beginning of a document has fewer.
    """
    return [
        TextWindow(place, begin, text[max(0, begin - context) : begin], text[begin : begin + window])
        for begin in range(0, len(text), window)
    ]


def count_symbols(name: str, lm: LanguageModel, windows: Sequence[TextWindow]) -> int:
    """Symbols of the texts of all windows, each encoded on its own, after a check that a model can read them.

    Args:
        name: of the model, for messages.
        lm: the model.
        windows: any number.
    Raises:
        DecodingError: BOS, context and text of a window are longer than the model's context.
        EncodingError: a text with a lone surrogate or a control string.
    """
    most, total = lm.config.context, 0
    opening, unit = len(lm.tokenizer.opening(lm.config.patch)), "bytes" if lm.config.vocab_size == 256 else "tokens"
    for window in windows:
        try:
            before, own = (len(lm.tokenizer.encode(text)) for text in (window.context, window.text))
        except EncodingError as error:
            raise EncodingError(f"{window.place}: model {name}: {error}") from None
        bos = opening if before else max(opening, 1)
        if bos + before + own > most:
            end = window.begin + len(window.text)
            raise DecodingError(
                f"{window.place}: model {name}: characters {window.begin} to {end} with {len(window.context)} before"
                f" them make {own} + {before} {unit}{f' and {bos} of BOS' if bos else ''}, expected at most the model's"
                f" context of {most}: use shorter windows or less context"
            )
        total += own
    return total


def score_windows(
    lm: LanguageModel,
    windows: Sequence[TextWindow],
    law: str | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Score:
    """Likelihood of the texts of all windows, each given its context as a prompt. Every character is scored once.

    What models of different symbols say of the same windows can be compared: all have read the same characters.

    Args:
        lm: its context must hold every window, see :func:`count_symbols`.
        windows: at least one.
        law: as for ``lm.score``.
        on_progress: called with the number of windows that were scored since the last call.
    Raises:
        LawError: the model does not define ``law``.
    """
    parts = []
    for some in _chunks(windows, max(1, _MOST_LOGITS // lm.tokenizer.vocab_size)):
        texts, contexts = [window.text for window in some], [window.context for window in some]
        parts.append(lm.score(texts, prompts=contexts, law=law).total)
        on_progress(len(some))
    nats, chars, utf8_bytes = zip(*((p.nats, p.num_chars, p.num_utf8_bytes) for p in parts), strict=True)
    total = Score(math.fsum(nats), sum(chars), sum(utf8_bytes))
    assert total.num_chars == sum(len(window.text) for window in windows)
    return total


def _chunks(windows: Sequence[TextWindow], most: int) -> Iterator[list[TextWindow]]:
    """A few windows at a time, of about ``most`` characters with their contexts."""
    ends = list(itertools.accumulate(len(window.context) + len(window.text) for window in windows))
    for _, group in itertools.groupby(range(len(windows)), lambda i: ends[i] // most):
        yield [windows[i] for i in group]
