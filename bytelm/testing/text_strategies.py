"""Hypothesis strategies for text, and for bytes near the borders of what an encoding accepts."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from bytelm.encoding import ESCAPES
from bytelm.errors import ConfigError

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ConfigError("hypothesis: not installed, expected it: pip install 'bytelm[notebooks]'") from error

TELLING: Final = (
    "\0\t\n\r\x1b\x7f\x80\xa0ÿĀ\u0300\u0301e\u07ff\u0800あのー。山\u212b\ud7ff"
    "\ue000\ufeff\ufffd\uffff\U00010000🐟🇯\U0010ffff"
)
"""Characters at which encodings go wrong: ends of ranges, controls, marks that join, what begins or ends a stream."""

BORDERS: Final = (
    b"\x00\x41\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xd7\xd8\xdb\xdc\xdf\xe0\xe1\xe6\xe7\xec\xed\xee\xef"
    b"\xf0\xf1\xf3\xf4\xf5\xf7\xf8\xfa\xfb\xff\x10\x11\xb8\xb7\xb1\xb2\xb3"
)
"""Byte values at which UTF-8, UTF-16 and dense codes change their mind."""


def short_strings() -> Iterator[bytes]:
    """Every single byte, and every pair of border values: what random strings seldom are."""
    yield from (bytes([byte]) for byte in range(256))
    yield from map(bytes, itertools.product(BORDERS, repeat=2))


def characters() -> st.SearchStrategy[str]:
    """One scalar value; often a telling one."""
    return st.sampled_from(TELLING) | st.characters(exclude_categories=["Cs"])


def texts(extra: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """Text of any scalar values, of telling characters, and of both.

    Args:
        extra: strings that also appear as a whole, such as the names of controls.
    """
    parts = [st.text(max_size=12), st.text(st.sampled_from(TELLING), max_size=8)]
    if extra:
        parts.append(st.sampled_from([*extra]))
    return st.text() | st.lists(st.one_of(parts), max_size=4).map("".join)


def byte_strings(
    coder: Any = None, controls: Iterable[bytes] = (), *, escapes: bool = False
) -> st.SearchStrategy[bytes]:
    """Byte strings of up to a few dozen bytes: noise, border values, and, of a coder, words, whole and cut, mixed.

    Args:
        coder: has ``encode``; None for noise and border values alone.
        controls: code words of controls, which stand among the others.
        escapes: whether words of escaped bytes do, by ``encode(text, "surrogateescape")``.
    """
    border = st.lists(st.sampled_from(BORDERS), max_size=24).map(bytes)
    parts = [st.binary(max_size=6), border]
    if coder is not None:
        words = [bytes(coder.encode(character)) for character in TELLING]
        used = sorted({byte for word in words for byte in word})
        parts += [
            st.text(max_size=4).map(lambda text: bytes(coder.encode(text))),
            st.lists(characters().map(lambda character: bytes(coder.encode(character))[:-1]), max_size=3).map(b"".join),
            st.lists(st.sampled_from(used), max_size=9).map(bytes),
        ]
    known = [*controls]
    if known:
        parts.append(st.sampled_from(known))
    if escapes:
        parts.append(st.sampled_from(ESCAPES).map(lambda value: bytes(coder.encode(chr(value), "surrogateescape"))))
    return st.lists(st.one_of(parts), max_size=6).map(b"".join) | st.binary() | border
