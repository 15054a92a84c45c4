"""Stops as users write them: strings, bytes, ids, lists of these, callables, a number of characters."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytelm.decoding import SequenceStop, Stop
from bytelm.errors import DecodingError, EncodingError
from bytelm.tokenizer import Tokenizer


def make_stops(
    tokenizer: Tokenizer,
    stop: Any,
    ends: Sequence[Sequence[int]] | None,
    max_new_chars: int | None,
) -> list[Stop]:
    """The stops of a call.

    Args:
        tokenizer: of the model.
        stop: one or several of: strings and control strings, which match as whole words of the encoding; bytes, an id
            or ids, which match wherever they stand; callables ``(row, generated) -> bool``, asked at every symbol.
        ends: sequences of ids that end a text; EOS for None.
        max_new_chars: whole characters after which a row ends; None for no limit.
    Raises:
        DecodingError: something else was found, or a limit below 1.
        EncodingError: a string with a lone surrogate.
    """
    stops: list[Stop] = []
    if ends is None:
        stops.append(SequenceStop(tuple(tokenizer.eos.tolist()), _aligned(tokenizer)))
    else:
        stops += [SequenceStop(tuple(end)) for end in ends]
    for number, item in enumerate(_listed(stop)):
        stops.append(_make_stop(tokenizer, f"stop {number}", item))
    if max_new_chars is not None:
        if max_new_chars < 1:
            raise DecodingError(f"max_new_chars: found {max_new_chars}, expected at least 1")
        stops.append(CharacterLimit(tokenizer, max_new_chars))
    return stops


def end_sequences(eos_token_id: Any) -> list[tuple[int, ...]]:
    """The sequences of ids that ``eos_token_id`` names: an id, ids, or sequences of ids, as transformers takes it.

    Raises:
        DecodingError: something else was found, or an empty sequence.
    """
    items = [eos_token_id] if isinstance(eos_token_id, Integral) else list(eos_token_id)
    ends = [_ids("eos_token_id", item) for item in items]
    if not all(ends):
        raise DecodingError("eos_token_id: found an empty sequence, expected at least one id")
    return ends


def _listed(stop: Any) -> list[Any]:
    if isinstance(stop, str | bytes | Integral) or callable(stop):
        return [stop]
    items = list(stop)
    return [items] if items and all(isinstance(item, Integral) for item in items) else items


def _make_stop(tokenizer: Tokenizer, place: str, item: Any) -> Stop:
    if callable(item):
        return item
    if isinstance(item, bytes):
        return SequenceStop(tuple(item))
    if not isinstance(item, str):
        return SequenceStop(_ids(place, item))
    try:
        word = tokenizer.encode(item, allowed_controls="all")
    except EncodingError as error:
        raise EncodingError(f"{place}: {error}") from None
    return SequenceStop(tuple(word.tolist()), _aligned(tokenizer))


def _ids(place: str, item: Any) -> tuple[int, ...]:
    items = [item] if isinstance(item, Integral) else item
    try:
        ids = tuple(int(i) for i in items)
    except (TypeError, ValueError):
        raise DecodingError(f"{place}: found {item!r}, expected a string, bytes, ids or a callable") from None
    if not all(0 <= i < 256 for i in ids):
        raise DecodingError(f"{place}: found {ids}, expected ids from 0 to 255")
    return ids


def _aligned(tokenizer: Tokenizer) -> Any:
    def aligned(generated: NDArray[np.uint8], start: int) -> bool:
        return bool(tokenizer.encoding.char_starts(generated)[start])

    return aligned


class CharacterLimit:
    """End a row with the last byte of its n-th character; controls do not count, a malformed piece counts as one.

    Args:
        tokenizer: of the model.
        most: n.
    """

    def __init__(self, tokenizer: Tokenizer, most: int) -> None:
        self.tokenizer, self.most = tokenizer, most
        self._read: dict[int, tuple[int, int]] = {}

    def __call__(self, row: int, generated: NDArray[np.uint8]) -> bool:
        """Whether the row has its characters."""
        begin, chars = self._read.get(row, (0, 0))
        tail = generated[begin:]
        complete = self.tokenizer.encoding.complete(tail)
        if complete:
            chars += len(self.tokenizer.decode(tail[:complete], errors="replace", skip_controls=True))
            self._read[row] = begin + complete, chars
        return chars >= self.most
