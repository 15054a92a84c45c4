"""Texts that join and leave a running batch: text in, text out, a forward at a time."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding import Arrival, Drafter, Session, Step
from bytelm.decoding.generation import Finish, Totals
from bytelm.errors import DecodingError
from bytelm.hub.options import AllowedControls, GenerationOptions
from bytelm.hub.processing import make_processor
from bytelm.hub.stopping import TextStop, end_sequences, make_stops
from bytelm.hub.text_stream import RowText
from bytelm.model.targets import NextTarget, PatchTarget
from bytelm.tokenizer import BaseTokenizer

Encode = Callable[[Sequence[str], AllowedControls], list[NDArray[Any]]]
"""The ids that a model reads for each prompt."""

OF_A_SESSION = ("law", "attention", "draft", "num_draft_tokens", "verify", "compile")
"""Options that all rows of a session share."""


def make_arrival(
    tokenizer: BaseTokenizer[Any], vocab_size: int, prompts: Sequence[NDArray[Any]], options: GenerationOptions
) -> tuple[Arrival, TextStop]:
    """The rows that the options ask for, and what says where their texts end.

    Args:
        tokenizer: of the model.
        vocab_size: of the model.
        prompts: of its symbols.
        options: those of rows; :data:`OF_A_SESSION` are not looked at.
    Raises:
        DecodingError: see :meth:`LanguageModel.generate`.
        EncodingError: a stop with a lone surrogate.
        ConfigError: a bad sampling option.
    """
    ends = None if options.eos_token_id is None else end_sequences(options.eos_token_id, vocab_size)
    stops, text_stop = make_stops(tokenizer, options.stop, ends, options.max_new_chars)
    processor = make_processor(
        tokenizer,
        max_new=options.max_new_tokens,
        min_new=options.min_new_tokens,
        ends=ends,
        sequence_bias=options.sequence_bias,
        repetition_penalty=options.repetition_penalty,
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        logits_processor=options.logits_processor,
        valid_text=options.valid_text,
        pattern=options.pattern,
    )
    arrival = Arrival(
        prompts=prompts,
        max_new=options.max_new_tokens,
        sampling=options.sampling,
        stops=stops,
        processor=processor,
        num_sequences=options.num_return_sequences,
        max_seconds=options.max_time,
        seed=options.seed,
    )
    return arrival, text_stop


@dataclasses.dataclass(eq=False)
class TextRequest:
    """Prompts with their options, encoded and checked; what :meth:`TextSession.admit` takes, once.

    Attributes:
        arrival: the rows.
        text_stop: says where their texts end.
        first_row: id of the first row in the session; -1 before it is there.
        num_live: rows that have not ended.
    """

    arrival: Arrival
    text_stop: TextStop
    first_row: int = -1

    def __post_init__(self) -> None:
        self.num_live = self.num_rows

    @property
    def num_rows(self) -> int:
        """Rows: prompts times sequences; those of a prompt stand together."""
        return self.arrival.num_rows

    @property
    def num_prompt_symbols(self) -> int:
        """Symbols of all prompts, each once."""
        return sum(len(prompt) for prompt in self.arrival.prompts)


class TextStep(NamedTuple):
    """What one forward gave one row.

    Attributes:
        request: whose row it is.
        row: its index among the request's.
        text: characters that became certain; the pieces of a row add up to its text in :class:`Output`.
        symbols: the new ones.
        nats: -log p of each under the law.
        finish: why the row ended, if it has.
    """

    request: TextRequest
    row: int
    text: str
    symbols: NDArray[Any]
    nats: NDArray[np.float64]
    finish: Finish | None


class TextSession:
    """A running batch of one model under one law; what a request gives does not depend on who else is in it.

    Made by :meth:`LanguageModel.session`.

    Args:
        target: the model under the law.
        tokenizer: of the model.
        encode: how prompts are read.
        drafter: for all rows.
        verify: name of the rule.
    """

    def __init__(
        self,
        target: PatchTarget | NextTarget,
        tokenizer: BaseTokenizer[Any],
        encode: Encode,
        drafter: Drafter,
        verify: str = "exact",
    ) -> None:
        self._target, self._tokenizer, self._encode = target, tokenizer, encode
        self._session = Session(target, drafter=drafter, verify=verify)
        self._rows: dict[int, tuple[TextRequest, RowText]] = {}

    @property
    def num_live(self) -> int:
        """Rows that have not ended."""
        return len(self._rows)

    @property
    def totals(self) -> Totals:
        """What all rows so far cost and gave."""
        return self._session.totals

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values of the batch."""
        return self._target.cache.num_bytes if self._rows else 0

    def prepare(self, prompts: Sequence[str], **options: Any) -> TextRequest:
        """Encode and check a request; the session does not change.

        Args:
            prompts: texts of any lengths.
            options: fields of :class:`GenerationOptions` but those in :data:`OF_A_SESSION`.
        Raises:
            DecodingError: a prompt does not fit the context; a bad limit; an option of the whole session.
            EncodingError: a prompt with a lone surrogate or a control string.
            ConfigError: a bad sampling option.
        """
        shared = next((name for name in options if name in OF_A_SESSION), None)
        if shared is not None:
            raise DecodingError(f"option {shared}: found in a request, expected for the whole session")
        chosen = GenerationOptions.of(options)
        told = self._encode(prompts, chosen.allowed_controls)
        arrival, text_stop = make_arrival(self._tokenizer, self._target.vocab_size, told, chosen)
        self._target.check_fits(arrival.prompts, arrival.max_new)
        return TextRequest(arrival, text_stop)

    def admit(self, requests: Sequence[TextRequest]) -> list[TextStep]:
        """Read the prompts of these requests, in one forward, and emit the first symbols of each row.

        Raises:
            DecodingError: what the drafter refuses; then none has joined.
        """
        assert all(request.first_row < 0 for request in requests)
        first = self._session.num_rows
        steps = self._session.admit([request.arrival for request in requests])
        for request in requests:
            request.first_row = first
            for row in range(first, first + request.num_rows):
                self._rows[row] = request, RowText(self._tokenizer, row, request.text_stop.ends)
            first += request.num_rows
        return self._tell(steps)

    def round(self) -> list[TextStep]:
        """One forward for all rows, of which there must be one."""
        return self._tell(self._session.round())

    def retire(self, requests: Sequence[TextRequest]) -> None:
        """End the rows of these requests where they are; nothing more is told of them."""
        rows = {r for request in requests for r in range(request.first_row, request.first_row + request.num_rows)}
        self._session.retire(rows)
        for row in rows & self._rows.keys():
            self._end(row)

    def release(self) -> None:
        """Give back the memory of rows that have ended."""
        self._session.release()

    def _tell(self, steps: Sequence[Step]) -> list[TextStep]:
        told = []
        for row, symbols, nats, result in steps:
            request, text = self._rows[row]
            finish = None if result is None else result.finish
            told.append(TextStep(request, row - request.first_row, text.read(symbols), symbols, nats, finish))
            if result is not None:
                self._end(row)
        return told

    def _end(self, row: int) -> None:
        request, _ = self._rows.pop(row)
        request.num_live -= 1
