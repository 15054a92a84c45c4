"""The two inner loops of an encoding, in C where the native core was built and in numpy where it was not.

Set ``BYTELM_KERNEL=numpy`` to do without the native core.
"""

import importlib
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding.convert import code_points_of

_CHUNK = 1 << 14  # characters at a time: what numpy works on stays in the cache


def _load() -> ModuleType | None:
    if os.environ.get("BYTELM_KERNEL") == "numpy":
        return None
    try:
        return importlib.import_module("._kernel", __package__)
    except ImportError:
        return None


_native = _load()


def kernel_name() -> Literal["native", "numpy"]:
    """Which of the two does the work."""
    return "numpy" if _native is None else "native"


def encode(text: str, words: NDArray[Any], lengths: NDArray[np.uint8], escapes: bool) -> NDArray[np.uint8]:
    """The code words of ``text``: uint8[n], writable.

    Args:
        text: characters, and with ``escapes`` also escaped bytes.
        words: big-endian uint32[0x110000], left-aligned.
        lengths: uint8[0x110000].
        escapes: whether the surrogates of ``ESCAPES`` are taken.
    Raises:
        EncodingError: a lone surrogate that is not taken, with its index.
    """
    if _native is not None:
        data = _native.encode_large(text, words, lengths, escapes)
        if data is not None:
            return np.frombuffer(data, dtype=np.uint8)
    out = bytearray()
    for start in range(0, len(text), _CHUNK):
        points = code_points_of(text[start : start + _CHUNK], start, escapes=escapes)
        rows = words.view(np.uint32)[points].view(np.uint8).reshape(-1, 4)
        out += rows[np.arange(4, dtype=np.uint8) < lengths[points][:, None]].data
    return np.frombuffer(out, dtype=np.uint8)


def encode_batch(
    texts: Sequence[str], words: NDArray[Any], lengths: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], list[int]] | None:
    """The code words of all texts one after another, and where each text ends; None if one holds a surrogate."""
    texts = list(texts)
    if _native is not None:
        data = np.empty(4 * sum(map(len, texts)), dtype=np.uint8)
        ends = np.empty(len(texts), dtype=np.int64)
        if _native.encode(texts, words, lengths, False, data, ends) < len(texts):
            return None
        data.resize(int(ends[-1]) if texts else 0, refcheck=False)
        return data, ends.tolist()
    whole = "".join(texts)
    if any("\ud800" <= c <= "\udfff" for c in whole):
        return None
    stops = np.cumsum(lengths[code_points_of(whole)], dtype=np.int64)
    ends = np.concatenate([[0], stops])[np.cumsum([len(text) for text in texts], dtype=np.int64)]
    return encode(whole, words, lengths, escapes=False), ends.tolist()


def decode(data: NDArray[np.uint8], trie: NDArray[np.int32], unit: int) -> str | None:
    """The text of ``data``, or None where it is not words of the trie alone, or where there is no native core."""
    if _native is None:
        return None
    text: str | None = _native.decode(np.ascontiguousarray(data), trie, unit)
    return text
