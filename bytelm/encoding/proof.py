"""A proof by exhaustion that an encoding is one: for all 1,112,064 scalar values and all controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from bytelm.encoding.base import NUM_SCALARS, Encoding, all_scalars, scalars_to_text
from bytelm.encoding.registry import encoding_from_dict
from bytelm.errors import EncodingError


@final
@dataclass(frozen=True, slots=True)
class Proof:
    """What :func:`prove` went through.

    Attributes:
        scalars: scalar values that came back from encoding and decoding.
        words_by_length: how many of their words have 1, 2, 3 and 4 bytes.
        controls: control words, none of which begins a word or begins with one.
        digest: the digest of the mapping, which is the stated one.
    """

    scalars: int
    words_by_length: tuple[int, int, int, int]
    controls: int
    digest: str


def prove(encoding: Encoding, table: Mapping[str, Any] | None = None) -> Proof:
    """Check that ``encoding`` maps every scalar value to a word of its own and back.

    Every scalar value is encoded and decoded; no word or control is equal to, or the beginning of, another word or
    control; the bytes of all scalar values are their words, one after another, and are cut back into them; the
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
    return Proof(NUM_SCALARS, (one, two, three, four), len(encoding.controls), encoding.digest)


def _round_trip(encoding: Encoding) -> None:
    scalars = all_scalars()
    lengths = encoding.lengths[scalars].astype(np.int64)
    if not lengths.all() or np.count_nonzero(encoding.lengths) != NUM_SCALARS:
        raise EncodingError(
            f"{encoding.name}: found {np.count_nonzero(encoding.lengths):,} code points with a word, "
            f"expected the {NUM_SCALARS:,} scalar values"
        )
    text = scalars_to_text(scalars.astype(np.int32))
    data = encoding.encode(text)
    rows = encoding.words[scalars].astype(">u4").view(np.uint8).reshape(-1, 4)
    if not np.array_equal(data, rows[np.arange(4) < lengths[:, None]]):
        raise EncodingError(f"{encoding.name}: found other bytes for all scalar values, expected their words in order")
    values, starts = encoding.parse(data)
    expected = np.cumsum(lengths) - lengths
    if len(values) != NUM_SCALARS or not np.array_equal(values, scalars) or not np.array_equal(starts, expected):
        same = min(len(values), NUM_SCALARS)
        differs = np.flatnonzero((values[:same] != scalars[:same]) | (starts[:same] != expected[:same]))
        first = int(differs[0]) if len(differs) else same
        found = f"{values[first]}" if first < len(values) else "nothing"
        raise EncodingError(
            f"{encoding.name}: U+{scalars[min(first, NUM_SCALARS - 1)]:04X} encoded and decoded: "
            f"found the value {found}, expected the same character"
        )
    if encoding.decode(data) != text:
        raise EncodingError(f"{encoding.name}: found another text after encoding and decoding, expected the same one")


def _prefix_free(encoding: Encoding) -> None:
    """In the order of words, with the shorter first, a word that begins another one begins its successor."""
    scalars = all_scalars()
    names = [*(f"U+{scalar:04X}" for scalar in scalars.tolist()), *encoding.controls]
    controls = list(encoding.controls.values())
    words = np.concatenate(
        [
            encoding.words[scalars].astype(np.int64),
            np.array([int.from_bytes(word.ljust(4, b"\0"), "big") for word in controls], dtype=np.int64),
        ]
    )
    lengths = np.concatenate([encoding.lengths[scalars].astype(np.int64), np.array([len(w) for w in controls])])
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
