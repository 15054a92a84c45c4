"""What every encoding shares: a table of code words, and decoding built on top of ``parse``."""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding import kernels
from bytelm.encoding.automaton import Automaton, build_trie, word_automaton
from bytelm.encoding.convert import (
    ESCAPES,
    NUM_CODE_POINTS,
    REPLACEMENT,
    ByteData,
    all_scalars,
    as_bytes,
    scalars_to_text,
)
from bytelm.encoding.stream import StreamingDecoder
from bytelm.errors import EncodingError

FORMAT_VERSION: Final = 2
INVALID: Final = -1000
"""The value that ``parse`` gives a malformed piece; values between it and 0 are controls."""

MAX_CONTROLS: Final = 64
Errors = Literal["strict", "replace", "surrogateescape"]

_CHUNK = 1 << 16  # bytes parsed at a time, so that scratch memory does not grow with the data


def control_names(count: int) -> tuple[str, ...]:
    """The control strings of an encoding with so many controls: PAD, BOS, EOS and the user-defined ones.

    Raises:
        EncodingError: fewer than the first three, or more than 64.
    """
    if not 3 <= count <= MAX_CONTROLS:
        raise EncodingError(f"num_controls: found {count}, expected 3 to {MAX_CONTROLS}")
    return ("<|pad|>", "<|bos|>", "<|eos|>", *(f"<|user{k}|>" for k in range(count - 3)))


CONTROL_NAMES: Final = control_names(8)
"""The control strings of the encodings of the package."""


class Encoding(ABC):
    """A stateless, total, injective and prefix-free map from Unicode scalar values to byte strings of 1 to 4 bytes.

    Subclasses describe one family each: they build the table of code words and implement :meth:`parse` and
    :meth:`_unfinished`; the rest is here. Instances are immutable and safe to share between threads.

    Besides the scalar values, U+DC80..U+DCFF have code words: with ``errors="surrogateescape"`` they carry the bytes of
    a file that is not UTF-8 (PEP 383). They are not text and appear in no encoding of text.

    Attributes:
        name: the name in the registry.
        unit: the length of every code word is a multiple of this many bytes.
        max_word: the length of the longest code word, in bytes.
        controls: control string to code word, in the order of ``control_names``. Text never produces them.
        words: big-endian uint32[0x110000], the code word of each code point, left-aligned, padded with zero bytes.
        lengths: uint8[0x110000], the length of each code word in bytes; 0 for the surrogates that have none.
    """

    family: ClassVar[str]

    def __init__(
        self, name: str, unit: int, words: NDArray[np.uint32], lengths: NDArray[np.uint8], controls: Sequence[bytes]
    ) -> None:
        assert words.shape == lengths.shape == (NUM_CODE_POINTS,)
        self.name = name
        self.unit = unit
        self.words = words.astype(">u4")
        self.lengths = lengths
        self.words.flags.writeable = False
        self.lengths.flags.writeable = False
        names = control_names(len(controls))
        self.controls: Mapping[str, bytes] = MappingProxyType(dict(zip(names, controls, strict=True)))
        self.max_word = max(int(lengths.max()), *map(len, controls))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, digest={self.digest[:12]!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoding):
            return NotImplemented
        return self.name == other.name and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.name, self.digest))

    def __reduce__(self) -> tuple[Any, ...]:
        from bytelm.encoding.registry import encoding_from_dict  # the registry imports the families

        return encoding_from_dict, (self.to_dict(),)

    # Identity

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the whole mapping: the length and word of every code point, then every control's word."""
        sha = hashlib.sha256(b"bytelm encoding 2\n")
        sha.update(self.lengths.tobytes())
        sha.update(self.words.tobytes())
        for control, word in self.controls.items():
            sha.update(f"{control}={word.hex()}\n".encode("ascii"))
        return sha.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """What ``encoding_from_dict`` needs to rebuild this encoding; JSON-serialisable, and checked by its digest."""
        return {
            "format_version": FORMAT_VERSION,
            "family": self.family,
            "name": self.name,
            **self._parameters(),
            "controls": {control: word.hex() for control, word in self.controls.items()},
            "digest": self.digest,
        }

    def _parameters(self) -> dict[str, Any]:
        """The family's own fields of :meth:`to_dict`, which are the arguments of the constructor besides the name."""
        return {}

    # Encoding

    def encode(self, text: str, errors: Literal["strict", "surrogateescape"] = "strict") -> NDArray[np.uint8]:
        """The code words of ``text``, one after another: uint8[n], writable.

        With ``errors="surrogateescape"`` the lone surrogates U+DC80..U+DCFF, by which Python's codecs carry bytes that
        are no text, have code words too: ``decode(encode(t, e), e) == t`` for ``t = data.decode("utf-8", e)`` of any
        bytes.

        Raises:
            EncodingError: ``text`` holds another lone surrogate; the message gives its index.
        """
        check_errors(errors, ("strict", "surrogateescape"))
        return kernels.encode(text, self.words, self.lengths, errors == "surrogateescape")

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint8]]:
        """The code words of each text, as :meth:`encode`, without its cost per call: views of one array.

        Raises:
            EncodingError: the number of the first text with a lone surrogate, and the index in it.
        """
        encoded = kernels.encode_batch(texts, self.words, self.lengths)
        if encoded is None:
            for number, text in enumerate(texts):
                try:
                    self.encode(text)
                except EncodingError as error:
                    raise EncodingError(f"text {number}: {error}") from None
        assert encoded is not None
        data, ends = encoded
        return [data[start:end] for start, end in pairwise([0, *ends])]

    def bytes_per_character(self, counts: NDArray[np.int64]) -> float:
        """Mean length of a code word, in bytes, over characters counted by ``count_characters``."""
        return float(counts @ self.lengths.astype(np.int64)) / float(counts.sum())

    # Decoding

    @abstractmethod
    def parse(self, data: ByteData) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Cut ``data`` into code words, controls and malformed pieces, without gaps.

        Returns:
            ``(values, starts)``, one entry per piece: ``values`` is a scalar value or an escape U+DC80..U+DCFF,
            ``-1-k`` for control number k, or ``INVALID``; ``starts`` is the byte offset of the piece.
        """

    @abstractmethod
    def _unfinished(self, data: NDArray[np.uint8]) -> int:
        """Number of bytes at the end of ``data`` whose piece depends on bytes that have not come yet."""

    def decode(self, data: ByteData, errors: Errors = "strict") -> str:
        """The text whose code words ``data`` holds.

        Every byte string is cut into pieces by the rule of the family, in its docstring and, in plain Python, in
        ``bytelm.encoding.reference``. ``"replace"``: every piece that is no character (malformed, unfinished, a
        control, an escaped byte) becomes one U+FFFD. ``"surrogateescape"``: escaped bytes become U+DC80..U+DCFF.
        Cutting ``data`` at :meth:`complete` and decoding both parts gives the same text.

        Args:
            data: bytes.
            errors: "strict", "replace" or "surrogateescape".
        Raises:
            EncodingError: unless ``errors="replace"``, at the first piece that is no character (nor an escaped byte
                with "surrogateescape"): its byte offset, its bytes in hex and the reason.
        """
        check_errors(errors)
        return self.decode_part(as_bytes(data), errors, offset=0, final=True)

    def decode_batch(self, rows: Sequence[ByteData], errors: Errors = "strict") -> list[str]:
        """The text of every row.

        Raises:
            EncodingError: as :meth:`decode`, with the number of the row.
        """
        texts = []
        for number, row in enumerate(rows):
            try:
                texts.append(self.decode(row, errors))
            except EncodingError as error:
                raise EncodingError(f"row {number}: {error}") from None
        return texts

    def decoder(self, errors: Errors = "strict") -> StreamingDecoder:
        """Decodes bytes that come piece by piece."""
        check_errors(errors)
        return StreamingDecoder(self, errors)

    def _decode_characters(self, array: NDArray[np.uint8]) -> str | None:
        """The text of a chunk of code words of scalar values alone by a faster way than :meth:`parse`, or None."""
        return None

    def decode_part(self, array: NDArray[np.uint8], errors: Errors, *, offset: int, final: bool) -> str:
        """:meth:`decode` of a part of the data that begins at ``offset``; unless it is ``final``, it is complete."""
        text = kernels.decode(array, self.trie, self.unit) if kernels.kernel_name() == "native" else None
        if text is not None:
            return text
        parts, start = [], 0
        while start < len(array):
            chunk = array[start : start + _CHUNK]
            last = start + len(chunk) == len(array)
            if not last:
                chunk = chunk[: self.complete(chunk)]
            text = self._decode_characters(chunk)
            if text is None:
                certain = self.complete(chunk) if last and final else len(chunk)
                values, starts = self.parse(chunk)
                values = self.settle(chunk, values, starts, errors, certain=certain, offset=offset + start)
                text = scalars_to_text(values)
            parts.append(text)
            start += len(chunk)
        return "".join(parts)

    def settle(
        self,
        data: NDArray[np.uint8],
        values: NDArray[np.int32],
        starts: NDArray[np.int64],
        errors: Errors,
        *,
        certain: int,
        allow_controls: bool = False,
        offset: int = 0,
    ) -> NDArray[np.int32]:
        """What :meth:`parse` returned for ``data``, with malformed pieces, and controls unless allowed, replaced or
        refused as :meth:`decode` does: int32[n], controls below 0. A malformed piece from byte ``certain`` on is an
        unfinished word.

        Raises:
            EncodingError: the byte offset, the bytes in hex and the reason, for the first such piece.
        """
        bad = values <= INVALID if allow_controls else values < 0
        if errors != "surrogateescape":
            bad |= (values >= ESCAPES.start) & (values < ESCAPES.stop)
        if not bad.any():
            return values
        if errors == "replace":
            return np.where(bad, np.int32(REPLACEMENT), values)
        first = int(bad.argmax())
        start = int(starts[first])
        stop = int(starts[first + 1]) if first + 1 < len(starts) else len(data)
        reason = self._reason(int(values[first]), start >= certain)
        raise EncodingError(
            f"byte offset {start + offset}: found {data[start:stop].tobytes().hex(' ')}, {reason}; "
            f"expected a code word of {self.name}"
        )

    def _reason(self, value: int, unfinished: bool) -> str:
        if value >= 0:
            return f"the escaped byte {value - 0xDC00:02x}, which is not text"
        if value > INVALID:
            return f"control {list(self.controls)[-1 - value]}, which is not text"
        return "an unfinished code word" if unfinished else "not a code word"

    def char_starts(self, data: ByteData) -> NDArray[np.bool_]:
        """bool[n]: where a character begins, or another piece: a control, an escaped byte, a malformed piece."""
        array = as_bytes(data)
        mask = np.zeros(len(array), dtype=np.bool_)
        mask[self.parse(array)[1]] = True
        return mask

    def complete(self, data: ByteData) -> int:
        """Length of the longest prefix of ``data`` that later bytes cannot change the meaning of.

        It ends at the end of a code word, a control or a piece that is malformed for good; what follows it (at most
        ``max_word - 1`` bytes) is an unfinished word.
        """
        array = as_bytes(data)
        return len(array) - self._unfinished(array)

    # The set of code words

    @functools.cached_property
    def trie(self) -> NDArray[np.int32]:
        """The code words of the scalar values, see ``bytelm.encoding.automaton.build_trie``; not to be written to."""
        return self._build_trie(all_scalars())

    def _build_trie(self, values: NDArray[np.int64]) -> NDArray[np.int32]:
        return build_trie(self.words[values].astype(np.uint64), self.lengths[values], values.astype(np.int32))

    def automaton(self, *, controls: Sequence[str] = (), escapes: bool = False) -> Automaton:
        """What may follow what, derived from the table: the automaton of the code words of text.

        A model whose logits are masked by it emits nothing that does not decode.

        Args:
            controls: control strings whose code words are legal too, such as ``["<|eos|>"]``.
            escapes: whether the code words of escaped bytes are legal too.
        Raises:
            EncodingError: a control string that the encoding does not have.
        """
        unknown = [name for name in controls if name not in self.controls]
        if unknown:
            raise EncodingError(f"controls: found {unknown[0]!r}, expected some of {', '.join(self.controls)}")
        key = (tuple(sorted(set(controls))), escapes)
        if key not in self._automata:
            self._automata[key] = self._build_automaton(*key)
        return self._automata[key]

    @functools.cached_property
    def _automata(self) -> dict[tuple[tuple[str, ...], bool], Automaton]:
        return {}

    def _build_automaton(self, controls: Sequence[str], escapes: bool) -> Automaton:
        values = np.flatnonzero(self.lengths) if escapes else all_scalars()
        extra = [self.controls[name] for name in controls]
        words = np.array([int.from_bytes(word.ljust(4, b"\0"), "big") for word in extra], dtype=np.uint64)
        lengths = np.array([len(word) for word in extra], dtype=np.uint8)
        return word_automaton(
            build_trie(
                np.concatenate([self.words[values].astype(np.uint64), words]),
                np.concatenate([self.lengths[values], lengths]),
                np.zeros(len(values) + len(words), dtype=np.int32),
            )
        )


def check_errors(errors: str, known: Sequence[str] = ("strict", "replace", "surrogateescape")) -> None:
    """Refuse an ``errors`` argument that is not ``known``."""
    if errors not in known:
        raise EncodingError(f"errors: found {errors!r}, expected one of {', '.join(map(repr, known))}")
