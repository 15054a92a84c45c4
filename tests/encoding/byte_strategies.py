"""Bytes near the borders of what an encoding accepts: its words, cut, joined and mixed with noise."""

import numpy as np
from hypothesis import strategies as st

from bytelm.encoding import ESCAPES, Encoding, get_encoding
from bytelm.encoding.registry import _BUILTIN

NAMES = list(_BUILTIN)

BORDERS = (
    b"\x00\x41\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xd7\xd8\xdb\xdc\xdf\xe0\xe1\xe6\xe7\xec\xed\xee\xef"
    b"\xf0\xf1\xf3\xf4\xf5\xf7\xf8\xfa\xfb\xff\x10\x11\xb8\xb7\xb1\xb2\xb3"
)


def byte_strings(encoding: Encoding | None = None) -> st.SearchStrategy[bytes]:
    """Byte strings of up to a few dozen bytes; with words and controls of ``encoding`` where one is given."""
    border = st.lists(st.sampled_from(BORDERS), max_size=24).map(bytes)
    parts = [st.binary(max_size=6), border]
    if encoding is not None:
        parts += [
            st.text(max_size=4).map(lambda text: encoding.encode(text).tobytes()),
            st.sampled_from([*encoding.controls.values()]),
            st.sampled_from(ESCAPES).map(lambda c: encoding.encode(chr(c), "surrogateescape").tobytes()),
        ]
    if encoding is not None and encoding.family == "dense":
        parts.append(st.lists(st.integers(encoding.s, 247), max_size=9).map(bytes))
    return st.lists(st.one_of(parts), max_size=6).map(b"".join) | st.binary() | border


ENCODINGS = [get_encoding(name) for name in NAMES]


def encodings_and_bytes() -> st.SearchStrategy[tuple[Encoding, bytes]]:
    return st.sampled_from(ENCODINGS).flatmap(lambda encoding: st.tuples(st.just(encoding), byte_strings(encoding)))


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def byte_classes(encoding: Encoding) -> list[list[int]]:
    """Bytes that no string of words, controls and escaped bytes tells apart by what may follow what."""
    automaton = encoding.automaton(controls=list(encoding.controls), escapes=True)
    _, kinds = np.unique(automaton.transitions, axis=1, return_inverse=True)
    return [np.flatnonzero(kinds == kind).tolist() for kind in range(kinds.max() + 1)]
