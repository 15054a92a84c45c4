"""A proof by exhaustion that an encoding is one: for all scalar values, all escaped bytes and all controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from bytelm.encoding.base import Encoding
from bytelm.encoding.convert import NUM_SCALARS, NUM_WORDS, all_values, scalars_to_text
from bytelm.encoding.registry import encoding_from_dict
from bytelm.errors import EncodingError


@final
@dataclass(frozen=True, slots=True)
class Proof:
    """What :func:`prove` went through.

    Attributes:
        scalars: scalar values that came back from encoding and decoding.
        escapes: escaped bytes that did.
        words_by_length: how many of their words have 1, 2, 3 and 4 bytes.
        controls: control words, none of which begins a word or begins with one.
        digest: the digest of the mapping, which is the stated one.
    """

    scalars: int
    escapes: int
    words_by_length: tuple[int, int, int, int]
    controls: int
    digest: str


def prove(encoding: Encoding, table: Mapping[str, Any] | None = None) -> Proof:
    """Check that ``encoding`` maps every scalar value and escaped byte to a word of its own and back.

    Each of them is encoded and decoded; no word or control is equal to, or the beginning of, another word or
    control; the bytes of all of them are their words, one after another, and are cut back into them; the
    encoding rebuilt from its table has the digest that the table states.

    Args:
        encoding: what to check.
        table: the table that it was read from; without it, that of ``to_dict``.

    Raises:
        EncodingError: the first thing that does not hold.
    """
    _round_trip(encoding)
    _prefix_free(encoding)
    stated = encoding.to_dict() if table is None else table
    rebuilt = encoding_from_dict(stated)
    if not stated["digest"] == rebuilt.digest == encoding.digest:
        raise EncodingError(
            f"{encoding.name}: digest: found {encoding.digest} of the mapping, expected {stated['digest']}"
        )
    one, two, three, four = (int(np.count_nonzero(encoding.lengths == length)) for length in (1, 2, 3, 4))
    return Proof(NUM_SCALARS, NUM_WORDS - NUM_SCALARS, (one, two, three, four), len(encoding.controls), encoding.digest)


def _round_trip(encoding: Encoding) -> None:
    mapped = all_values()
    lengths = encoding.lengths[mapped].astype(np.int64)
    if not lengths.all() or np.count_nonzero(encoding.lengths) != NUM_WORDS:
        raise EncodingError(
            f"{encoding.name}: found {np.count_nonzero(encoding.lengths):,} code points with a word, "
            f"expected the {NUM_WORDS:,} scalar values and escaped bytes"
        )
    text = scalars_to_text(mapped.astype(np.int32))
    data = encoding.encode(text, "surrogateescape")
    rows = encoding.words[mapped].astype(">u4").view(np.uint8).reshape(-1, 4)
    if not np.array_equal(data, rows[np.arange(4) < lengths[:, None]]):
        raise EncodingError(f"{encoding.name}: found other bytes for all values, expected their words in order")
    values, starts = encoding.parse(data)
    expected = np.cumsum(lengths) - lengths
    if len(values) != NUM_WORDS or not np.array_equal(values, mapped) or not np.array_equal(starts, expected):
        same = min(len(values), NUM_WORDS)
        differs = np.flatnonzero((values[:same] != mapped[:same]) | (starts[:same] != expected[:same]))
        first = int(differs[0]) if len(differs) else same
        found = f"{values[first]}" if first < len(values) else "nothing"
        raise EncodingError(
            f"{encoding.name}: U+{mapped[min(first, NUM_WORDS - 1)]:04X} encoded and decoded: "
            f"found the value {found}, expected the same character"
        )
    if encoding.decode(data, "surrogateescape") != text:
        raise EncodingError(f"{encoding.name}: found another text after encoding and decoding, expected the same one")


def _prefix_free(encoding: Encoding) -> None:
    """In the order of words, with the shorter first, a word that begins another one begins its successor."""
    mapped = all_values()
    names = [*(f"U+{scalar:04X}" for scalar in mapped.tolist()), *encoding.controls]
    controls = list(encoding.controls.values())
    words = np.concatenate(
        [
            encoding.words[mapped].astype(np.int64),
            np.array([int.from_bytes(word.ljust(4, b"\0"), "big") for word in controls], dtype=np.int64),
        ]
    )
    lengths = np.concatenate([encoding.lengths[mapped].astype(np.int64), np.array([len(w) for w in controls])])
    order = np.lexsort((lengths, words))
    words, lengths = words[order], lengths[order]
    drop = 8 * (4 - lengths[:-1])
    clash = np.flatnonzero(words[:-1] >> drop == words[1:] >> drop)
    if len(clash):
        one, other = order[clash[0]], order[clash[0] + 1]
        word = int(words[clash[0]]).to_bytes(4, "big")[: lengths[clash[0]]].hex(" ")
        raise EncodingError(
            f"{encoding.name}: found the word {word} of {names[one]} at the beginning of that of {names[other]}, "
            "expected no word to begin another"
        )
