"""GPT-2's byte-level BPE: text to ids and back, ids to bytes, and text in whole characters while ids come."""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding import check_errors, code_points_of
from bytelm.errors import CheckpointError, EncodingError
from bytelm.tokenizer.base import BaseTokenizer
from bytelm.tokenizer.bpe_files import BPEVocabulary, read_vocabulary
from bytelm.tokenizer.byte_level import bytes_of_token, decode_utf8
from bytelm.tokenizer.token_automaton import TokenAutomaton, token_automaton

TokenIds = NDArray[Any] | Sequence[int]
"""Ids in one dimension."""


class BPETokenizer(BaseTokenizer[np.int64]):
    """The ids of a byte-level BPE, which every text has and no text but its own.

    A literal control string in text is text, unless :meth:`encode` is allowed to read it; no control is ever added.
    Texts are cut into words and merged by the package ``tokenizers``; ids become bytes by their own table, and bytes
    become text as they are, so that ``decode(encode(text)) == text``.

    >>> tokenizer = BPETokenizer.from_folder("gpt2")
    >>> tokenizer.encode("hello <|endoftext|>")
    array([31373,  1279,    91,   437,  1659,  5239,    91,    29])
    >>> tokenizer.encode("hello <|endoftext|>", allowed_controls="all")
    array([31373,   220, 50256])

    Args:
        vocabulary: tokens, merges and controls.
    Attributes:
        vocabulary: as given.
        controls: control strings and their ids, those of tokens that were added to the vocabulary included.
        eos_id, bos_id: the id of ``<|endoftext|>``, which stands for both, and fills batches as well.
    Raises:
        CheckpointError: ``<|endoftext|>`` is no control of the vocabulary.
    """

    pad_token = "<|endoftext|>"
    bos_token = "<|endoftext|>"
    eos_token = "<|endoftext|>"
    begins_with_bos = False
    context_free = False

    def __init__(self, vocabulary: BPEVocabulary) -> None:
        super().__init__(vocabulary.controls)
        if self.eos_token not in vocabulary.controls:
            found = ", ".join(vocabulary.controls) or "none"
            raise CheckpointError(f"controls: found {found:.80}, expected {self.eos_token} among them")
        self.vocabulary = vocabulary
        self.controls = dict(vocabulary.controls)
        self.bos_id = self.controls[self.bos_token]
        self.eos_id = self.controls[self.eos_token]
        self._bytes = _bytes_by_id(vocabulary)
        self._names = {number: control for control, number in self.controls.items()}
        self._is_control = np.zeros(len(self._bytes), dtype=np.bool_)
        self._is_control[list(self._names)] = True
        self._coder = _make_coder(vocabulary)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "BPETokenizer":
        """The tokenizer in a model's folder: ``tokenizer.json``, or else ``vocab.json`` and ``merges.txt``; then
        ``added_tokens.json``.

        Raises:
            CheckpointError: a file is missing, damaged or of another kind of tokenizer; the message names it.
        """
        folder = Path(folder)
        vocabulary = read_vocabulary(folder)
        try:
            return cls(vocabulary)
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from None

    def __repr__(self) -> str:
        return f"BPETokenizer(vocab_size={self.vocab_size}, num_controls={len(self.controls)})"

    @property
    def vocab_size(self) -> int:
        """Number of ids; each has a token, from 0 to ``vocab_size - 1``. A model may have more rows than that."""
        return len(self._bytes)

    @property
    def name(self) -> str:
        """``bpe``."""
        return "bpe"

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of tokens and merges. Controls do not count: text has none."""
        parts = [sorted(self.vocabulary.tokens.items()), self.vocabulary.merges]
        return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()

    @property
    def unit(self) -> int:
        """1."""
        return 1

    @property
    def eos_start(self) -> tuple[int, ...]:
        """The id of EOS."""
        return (self.eos_id,)

    def bos_patch(self, num_ids: int = 1) -> NDArray[np.int64]:
        """The id of BOS, repeated: int64[num_ids].

        Raises:
            EncodingError: ``num_ids`` is negative.
        """
        if num_ids < 0:
            raise EncodingError(f"num_ids: found {num_ids}, expected at least 0")
        return np.full(num_ids, self.bos_id, dtype=np.int64)

    def word_starts(self, ids: TokenIds) -> NDArray[np.bool_]:
        """bool[n]: everywhere."""
        return np.ones(len(ids), dtype=np.bool_)

    def _make_automaton(self, pattern: str | None) -> TokenAutomaton:
        texts = [b"" if is_control else data for data, is_control in zip(self._bytes, self._is_control, strict=True)]
        return token_automaton(texts, self.eos_id, pattern)

    # Bytes

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one id; of a control, its string in UTF-8.

        Raises:
            EncodingError: no token has this id.
        """
        return self.to_bytes([token_id])

    def to_bytes(self, ids: TokenIds) -> bytes:
        """The bytes of ``ids``, one after another, which need not be whole characters.

        Raises:
            EncodingError: an id without a token, with its index.
        """
        return self._join(self._checked(ids))

    # Decoding

    def decode(
        self, ids: TokenIds, *, errors: Literal["strict", "replace"] = "strict", skip_controls: bool = False
    ) -> str:
        """The text of ``ids``; controls become their strings, or nothing with ``skip_controls``.

        With ``errors="replace"`` every piece that is no UTF-8 becomes one U+FFFD; no character reaches over a control.

        Raises:
            EncodingError: an id without a token, with its index; with ``errors="strict"``, the first malformed piece,
                with its offset in ``to_bytes(ids)``.
        """
        return self.decoder(errors, skip_controls=skip_controls).decode(ids, final=True)

    def complete(self, ids: TokenIds, *, skip_controls: bool = True) -> tuple[str, int]:
        """The text of ``ids`` that no later id can change, and how many bytes at their end wait for others: 0 to 3.

        Malformed bytes are U+FFFD.

        Raises:
            EncodingError: an id without a token, with its index.
        """
        decoder = self.decoder("replace", skip_controls=skip_controls)
        return decoder.decode(ids), len(decoder.pending)

    def decoder(self, errors: Literal["strict", "replace"] = "strict", *, skip_controls: bool = False) -> "BPEDecoder":
        """A decoder for ids that come piece by piece, with the options of :meth:`decode`.

        Raises:
            EncodingError: another value of ``errors``.
        """
        return BPEDecoder(self, errors, skip_controls=skip_controls)

    # Parts

    def _encode_text(self, text: str, start: int, stop: int) -> NDArray[np.int64]:
        part = text[start:stop]
        try:
            part.encode("utf-8")
        except UnicodeEncodeError:
            code_points_of(part, start)  # says where
        return np.array(self._coder.encode(part, add_special_tokens=False).ids, dtype=np.int64)

    def _control_ids(self, control: str) -> NDArray[np.int64]:
        return np.array([self.controls[control]], dtype=np.int64)

    def _find_controls(self, text: str, allowed: frozenset[str]) -> Iterator[tuple[int, str]]:
        if allowed:
            longest_first = sorted(allowed, key=len, reverse=True)
            for match in re.finditer("|".join(map(re.escape, longest_first)), text):
                yield match.start(), match.group()

    def _checked(self, ids: TokenIds) -> NDArray[np.int64]:
        array = np.asarray(ids)
        if array.ndim != 1:
            raise EncodingError(f"ids: found {array.ndim} dimensions, expected 1")
        if array.size == 0:
            return np.empty(0, dtype=np.int64)
        if not np.issubdtype(array.dtype, np.integer):
            raise EncodingError(f"ids: found values of type {array.dtype}, expected integers")
        outside = (array < 0) | (array >= self.vocab_size)
        if outside.any():
            index = int(outside.argmax())
            raise EncodingError(f"index {index}: found id {array[index]}, expected 0 to {self.vocab_size - 1}")
        return array.astype(np.int64, copy=False)

    def _join(self, ids: NDArray[np.int64]) -> bytes:
        return b"".join([self._bytes[number] for number in ids.tolist()])


class BPEDecoder:
    """Turns ids into text as they come, whole characters only, each as soon as no later id can change it.

    However the ids are cut, the texts that :meth:`decode` returns add up to ``tokenizer.decode`` of all of them. After
    an error the decoder is as it was before that call.

    Args:
        tokenizer: knows the bytes of ids.
        errors: "strict" or "replace".
        skip_controls: whether controls become nothing instead of their strings.
    Attributes:
        offset: number of bytes of ids that were decoded so far.
        pending: the bytes after these, which wait for others: at most 3.
    Raises:
        EncodingError: another value of ``errors``.
    """

    def __init__(
        self, tokenizer: BPETokenizer, errors: Literal["strict", "replace"], *, skip_controls: bool = False
    ) -> None:
        check_errors(errors, ("strict", "replace"))
        self.tokenizer, self.errors, self.skip_controls = tokenizer, errors, skip_controls
        self.offset = 0
        self.pending = b""

    def decode(self, ids: TokenIds = (), *, final: bool = False) -> str:
        """The text that is certain now; ``final`` says that no id follows, so that nothing is held back.

        Raises:
            EncodingError: as ``tokenizer.decode``; byte offsets count from the first byte of all, indices of ids from
                the first id of this call.
        """
        tokenizer = self.tokenizer
        array = tokenizer._checked(ids)
        pieces = []
        offset, held, begin = self.offset, self.pending, 0
        for index in np.flatnonzero(tokenizer._is_control[array]):
            data = held + tokenizer._join(array[begin:index])
            pieces.append(decode_utf8(data, self.errors, offset=offset)[0])
            control = int(array[index])
            if not self.skip_controls:
                pieces.append(tokenizer._names[control])
            offset += len(data) + len(tokenizer._bytes[control])
            held, begin = b"", int(index) + 1
        data = held + tokenizer._join(array[begin:])
        text, taken = decode_utf8(data, self.errors, offset=offset, final=final)
        self.offset, self.pending = offset + taken, data[taken:]
        return "".join([*pieces, text])


def _bytes_by_id(vocabulary: BPEVocabulary) -> list[bytes]:
    table = [b""] * (len(vocabulary.tokens) + len(vocabulary.controls))
    for token, number in vocabulary.tokens.items():
        data = bytes_of_token(token)
        assert data is not None, "tokens are made of bytes"
        table[number] = data
    for control, number in vocabulary.controls.items():
        table[number] = control.encode("utf-8")
    return table


def _make_coder(vocabulary: BPEVocabulary) -> Any:
    """The coder of text. It does not know the controls, so it reads them as text."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # on first use: not everyone needs it

    coder = Tokenizer(models.BPE(vocab=vocabulary.tokens, merges=vocabulary.merges))
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return coder
