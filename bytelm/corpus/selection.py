"""Which documents a corpus takes, and on which side each of them is: a function of the document alone."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, final

from bytelm.corpus.options import BuildOptions
from bytelm.corpus.readers import Piece

DIGEST_BYTES = 16
"""Of what tells documents apart: among 10^9 of them two are taken for equal by chance once in 10^21 builds."""

_SIDE_BYTES = 8

Verdict = Literal["taken", "too_short", "too_long"]


@final
@dataclass(frozen=True, slots=True)
class Judged:
    """A document that was read whole.

    ``pieces`` is empty where it is not taken; ``digest`` is BLAKE2b of its UTF-8 form, ``valid`` says whether it goes
    to the corpus for validation.
    """

    pieces: list[Piece]
    verdict: Verdict
    digest: bytes
    valid: bool


def in_valid(text: str, share: float) -> bool:
    """Whether the document of this text goes to the corpus for validation, of that share.

    It does where the last 8 bytes of BLAKE2b of its UTF-8 form, as a number, are below ``share`` of 2^64: whatever file
    it stands in, and whatever else is built. A larger share takes all that a smaller one takes.
    """
    return _side(_digest(text.encode("utf-8")).digest(), share)


def judge(pieces: Iterable[Piece], options: BuildOptions) -> Iterator[Judged]:
    """Each document whole, with what becomes of it by itself. One that is too long is not held in memory."""
    held: list[Piece] = []
    characters, digest = 0, _digest()
    for piece in pieces:
        characters += len(piece.text)
        digest.update(piece.text.encode("utf-8"))
        too_long = options.max_characters is not None and characters > options.max_characters
        if too_long:
            held = []
        else:
            held.append(piece)
        if piece.ends:
            too_short = options.min_characters is not None and characters < options.min_characters
            verdict: Verdict = "too_long" if too_long else "too_short" if too_short else "taken"
            found = digest.digest()
            valid = options.valid_share > 0 and _side(found, options.valid_share)
            yield Judged(held if verdict == "taken" else [], verdict, found[:DIGEST_BYTES], valid)
            held, characters, digest = [], 0, _digest()


def _digest(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES + _SIDE_BYTES)


def _side(digest: bytes, share: float) -> bool:
    return int.from_bytes(digest[DIGEST_BYTES:], "big") < Fraction(share) * (1 << 8 * _SIDE_BYTES)
