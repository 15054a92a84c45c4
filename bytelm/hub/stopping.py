"""Stops as users write them: strings, bytes, ids, lists of these, callables, a number of characters."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding import SequenceStop, Stop
from bytelm.errors import DecodingError, EncodingError
from bytelm.tokenizer import BaseTokenizer


def make_stops(
    tokenizer: BaseTokenizer[Any],
    stop: Any,
    ends: Sequence[Sequence[int]] | None,
    max_new_chars: int | None,
) -> tuple[list[Stop], "TextStop"]:
    """The stops of a call, and the one of them that ends texts, which says where.

    Args:
        tokenizer: of the model.
        stop: one or several of: strings; control strings, which match the control alone; bytes (of byte models), an id
            or ids, which match wherever they stand; callables ``(row, generated) -> bool``, asked at every symbol.
        ends: sequences of ids that end a text; EOS for None. Those that are text or controls match where these stand,
            and not inside another character, whose code may hold the same bytes.
        max_new_chars: whole characters after which a row ends; None for no limit.
    Raises:
        DecodingError: something else was found, or a limit below 1.
        EncodingError: a string with a lone surrogate.
    """
    stops: list[Stop] = []
    strings: list[str] = []
    if ends is None:
        stops.append(_word_stop(tokenizer, tokenizer.eos))
    else:
        stops += [_end_stop(tokenizer, end) for end in ends]
    for number, item in enumerate(_listed(stop)):
        place = f"stop {number}"
        if isinstance(item, str) and not tokenizer.has_control(item):
            strings.append(_checked(tokenizer, place, item))
        else:
            stops.append(_make_stop(tokenizer, place, item))
    if max_new_chars is not None and max_new_chars < 1:
        raise DecodingError(f"max_new_chars: found {max_new_chars}, expected at least 1")
    text_stop = TextStop(tokenizer, strings, max_new_chars)
    return [*stops, *([text_stop] if strings or max_new_chars else [])], text_stop


def end_sequences(eos_token_id: Any, vocab_size: int) -> list[tuple[int, ...]]:
    """The sequences of ids that ``eos_token_id`` names: an id, ids, or sequences of ids, as transformers takes it.

    Raises:
        DecodingError: something else was found, an id that is not below ``vocab_size``, or an empty sequence.
    """
    items = [eos_token_id] if isinstance(eos_token_id, Integral) else list(eos_token_id)
    ends = [_ids("eos_token_id", item, vocab_size) for item in items]
    if not all(ends):
        raise DecodingError("eos_token_id: found an empty sequence, expected at least one id")
    return ends


def _listed(stop: Any) -> list[Any]:
    if isinstance(stop, str | bytes | Integral) or callable(stop):
        return [stop]
    items = list(stop)
    return [items] if items and all(isinstance(item, Integral) for item in items) else items


def _checked(tokenizer: BaseTokenizer[Any], place: str, text: str) -> str:
    if not text:
        raise DecodingError(f"{place}: found an empty string, expected at least one character")
    try:
        tokenizer.encode(text)
    except EncodingError as error:
        raise EncodingError(f"{place}: {error}") from None
    return text


def _make_stop(tokenizer: BaseTokenizer[Any], place: str, item: Any) -> Stop:
    """The stop of all that is not text alone."""
    if callable(item):
        return item
    if isinstance(item, bytes) and tokenizer.vocab_size == 256:
        return SequenceStop(tuple(item))
    if not isinstance(item, str):
        return SequenceStop(_ids(place, item, tokenizer.vocab_size))
    try:
        word = tokenizer.encode(item, allowed_controls="all")
    except EncodingError as error:
        raise EncodingError(f"{place}: {error}") from None
    if len(word) > 1 and not tokenizer.context_free:
        raise DecodingError(f"{place}: found {item!r}, expected a control alone, or text without one")
    return _word_stop(tokenizer, word)


def _ids(place: str, item: Any, vocab_size: int) -> tuple[int, ...]:
    if isinstance(item, bytes):
        raise DecodingError(f"{place}: found {item!r}, expected a string, ids or a callable: symbols are no bytes")
    items = [item] if isinstance(item, Integral) else item
    try:
        ids = tuple(int(i) for i in items)
    except (TypeError, ValueError):
        raise DecodingError(f"{place}: found {item!r}, expected a string, bytes, ids or a callable") from None
    if not all(0 <= i < vocab_size for i in ids):
        raise DecodingError(f"{place}: found {ids}, expected ids from 0 to {vocab_size - 1}")
    return ids


def _end_stop(tokenizer: BaseTokenizer[Any], ids: Sequence[int]) -> SequenceStop:
    try:
        tokenizer.decode(list(ids))
    except EncodingError:
        return SequenceStop(tuple(ids))
    return _word_stop(tokenizer, np.array(ids))


def _word_stop(tokenizer: BaseTokenizer[Any], word: NDArray[Any]) -> SequenceStop:
    def aligned(generated: NDArray[Any], start: int) -> bool:
        return bool(tokenizer.word_starts(generated)[start])

    return SequenceStop(tuple(word.tolist()), aligned)


class TextStop:
    """Ends a row where its text first contains one of some strings, or has so many characters.

    Its text then ends exactly there, which may be inside the last symbol. Controls are no part of the text and a
    malformed piece is one character, U+FFFD.

    Args:
        tokenizer: of the model.
        strings: stop strings, which stay in the text.
        most: characters; None for no limit.
    Attributes:
        ends: of each row that was ended so, the characters of its text.
    """

    def __init__(self, tokenizer: BaseTokenizer[Any], strings: Sequence[str], most: int | None) -> None:
        self.tokenizer, self.strings, self.most = tokenizer, tuple(strings), most
        self.ends: dict[int, int] = {}
        self._rows: dict[int, _Text] = {}

    def __call__(self, row: int, generated: NDArray[Any]) -> bool:
        """Whether the text of the row has its end."""
        if row not in self._rows:
            self._rows[row] = _Text(self.tokenizer)
        text = self._rows[row]
        before = len(text.text)
        text.read(generated)
        found = [text.text.find(string, max(0, before - len(string) + 1)) for string in self.strings]
        ends = [begin + len(string) for begin, string in zip(found, self.strings, strict=True) if begin >= 0]
        if self.most is not None and len(text.text) >= self.most:
            ends.append(self.most)
        if not ends:
            return False
        self.ends[row] = min(ends)
        return True


class _Text:
    """What a row's symbols say so far."""

    def __init__(self, tokenizer: BaseTokenizer[Any]) -> None:
        self._decoder = tokenizer.decoder("replace", skip_controls=True)
        self._count = 0
        self.text = ""

    def read(self, generated: NDArray[Any]) -> None:
        """Take the symbols that are new."""
        self.text += self._decoder.decode(generated[self._count :])
        self._count = len(generated)
