"""What generating and scoring gave."""

import dataclasses
import html
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding import DecodeStats, Trace
from bytelm.decoding.generation import LAW, Finish
from bytelm.hub.text_stream import finished_text
from bytelm.model.config import PromptAttention
from bytelm.model.ends import Law
from bytelm.tokenizer import BaseTokenizer

PALETTE = {"law": "#ffffff", "heads": "#bfe3c0", "lookup": "#ffd9a0", "model": "#bcd4f5"}
"""Background of the text that each drafter had proposed; what no draft had proposed stays white."""


@dataclasses.dataclass(frozen=True)
class Output:
    """What :meth:`LanguageModel.generate` gave, one entry per row in every list; the rows of a prompt stand together.

    Attributes:
        texts: continuations, without the prompt and without controls; a stop string stays, what its last symbol says
            after it does not. A character that a limit cut is in ``ids`` alone.
        ids: the symbols behind them, controls included; uint8 of bytes, int64 of tokens.
        finish: ``"length"``, ``"stop"`` or ``"time"``.
        nats: ``-log p`` of each symbol under the law, before temperature and truncation.
        trace: forward, place in it and drafter of each symbol.
        stats: cost of the run, rule, and whether the output has the law.
        law: the law that was decoded.
        draft: the drafter that was asked for.
        attention: what the positions of a prompt saw.
        tokenizer: of the model.
    """

    texts: list[str]
    ids: list[NDArray[Any]]
    finish: list[Finish]
    nats: list[NDArray[np.float64]]
    trace: list[Trace]
    stats: DecodeStats
    law: Law
    draft: str
    attention: PromptAttention
    tokenizer: BaseTokenizer[Any]

    @property
    def num_chars(self) -> int:
        """Characters of all rows; U+FFFD, which stands for bytes that are no character, does not count."""
        return sum(len(text) - text.count("\ufffd") for text in self.texts)

    @property
    def num_utf8_bytes(self) -> int:
        """UTF-8 bytes of those characters."""
        return sum(len(text.replace("\ufffd", "").encode("utf-8")) for text in self.texts)

    @property
    def chars_per_forward(self) -> float:
        """Characters per forward of a live row, prefill included."""
        return self.num_chars / sum(self.stats.row_forwards)

    @property
    def chars_per_second(self) -> float:
        """Characters of all rows per second of wall time, prefill included."""
        return self.num_chars / self.stats.seconds

    def spans(self, row: int) -> list[tuple[str, str, int]]:
        """The text of a row in pieces of one origin: (text, drafter or ``law``, forward).

        A character comes from where its last symbol came from. Controls are shown as their names; a character that a
        limit cut is left out, and so is what follows a stop string.
        """
        trace, decoder = self.trace[row], self.tokenizer.decoder("replace")
        pieces: list[tuple[str, str, int]] = []
        for index in range(len(self.ids[row])):
            text = decoder.decode(self.ids[row][index : index + 1])
            source, forward = str(trace.source[index]), int(trace.forward[index])
            if pieces and pieces[-1][1:] == (source, forward):
                pieces[-1] = (pieces[-1][0] + text, source, forward)
            elif text:
                pieces.append((text, source, forward))
        beyond = len(finished_text(self.tokenizer, self.ids[row])) - len(self.texts[row])
        if beyond:
            pieces[-1] = (pieces[-1][0][:-beyond], *pieces[-1][1:])
        return pieces

    def _repr_html_(self) -> str:
        """The texts, coloured by where each symbol came from; a bar begins the text of each forward."""
        rows = "".join(
            f"<p style='font-family:sans-serif;white-space:pre-wrap'>{self._row_html(r)}</p>"
            for r in range(len(self.ids))
        )
        used = [LAW, *self.stats.by_drafter]
        legend = " ".join(
            f"<span style='background:{PALETTE.get(name, '#ddd')};color:#000'>{name}</span>" for name in used
        )
        drafted = f", {self.stats.accepted} of {self.stats.drafted} drafted symbols held" if self.stats.drafted else ""
        return (
            f"{rows}<small>{legend} · law {self.law}, {self.num_chars} characters in {self.stats.forwards} forwards"
            f"{drafted}</small>"
        )

    def _row_html(self, row: int) -> str:
        shown, before = [], -1
        for text, source, forward in self.spans(row):
            edge = "border-left:2px solid #999;" if forward != before else ""
            style = f"{edge}background:{PALETTE.get(source, '#ddd')};color:#000"
            shown.append(f"<span style='{style}' title='{source}, forward {forward}'>{html.escape(text)}</span>")
            before = forward
        return "".join(shown)


@dataclasses.dataclass(frozen=True)
class Score:
    """Likelihood of one text, or of several together.

    Attributes:
        nats: ``-log p``, natural, summed in float64 over all symbols.
        num_chars: characters (Unicode scalar values) of the text.
        num_utf8_bytes: bytes of the text in UTF-8, whatever the model's encoding.
    """

    nats: float
    num_chars: int
    num_utf8_bytes: int

    @property
    def bits_per_char(self) -> float:
        """Bits per character; NaN for an empty text."""
        return self.nats / math.log(2) / self.num_chars if self.num_chars else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of the text; NaN for an empty text."""
        return self.nats / math.log(2) / self.num_utf8_bytes if self.num_utf8_bytes else math.nan


class Scores(list[Score]):
    """One :class:`Score` per text, and their total.

    Attributes:
        law: that was scored.
        attention: what the positions of a prompt saw; ``causal`` where there was none.
    """

    def __init__(self, scores: Iterable[Score], law: Law, attention: PromptAttention) -> None:
        super().__init__(scores)
        self.law, self.attention = law, attention

    @property
    def total(self) -> Score:
        """All texts together."""
        return Score(
            math.fsum(s.nats for s in self), sum(s.num_chars for s in self), sum(s.num_utf8_bytes for s in self)
        )
