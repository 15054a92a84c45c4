"""Bytes near the borders of what an encoding accepts: its words, cut, joined and mixed with noise."""

import numpy as np
from hypothesis import strategies as st

from bytelm.encoding import Encoding, get_encoding
from bytelm.encoding.registry import _BUILTIN
from bytelm.testing.text_strategies import BORDERS as BORDERS
from bytelm.testing.text_strategies import byte_strings as any_byte_strings

NAMES = list(_BUILTIN)
ENCODINGS = [get_encoding(name) for name in NAMES]


def byte_strings(encoding: Encoding) -> st.SearchStrategy[bytes]:
    """Byte strings with words, controls and escaped bytes of ``encoding``; runs of continuers where it has some."""
    found = any_byte_strings(encoding, encoding.controls.values(), escapes=True)
    if encoding.family == "dense":
        continuers = st.lists(st.integers(encoding.s, 247), max_size=9).map(bytes)
        found |= st.lists(continuers | found, max_size=4).map(b"".join)
    return found


def encodings_and_bytes() -> st.SearchStrategy[tuple[Encoding, bytes]]:
    return st.sampled_from(ENCODINGS).flatmap(lambda encoding: st.tuples(st.just(encoding), byte_strings(encoding)))


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def byte_classes(encoding: Encoding) -> list[list[int]]:
    """Bytes that no string of words, controls and escaped bytes tells apart by what may follow what."""
    automaton = encoding.automaton(controls=list(encoding.controls), escapes=True)
    _, kinds = np.unique(automaton.transitions, axis=1, return_inverse=True)
    return [np.flatnonzero(kinds == kind).tolist() for kind in range(kinds.max() + 1)]
