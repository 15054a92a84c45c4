"""Text to byte ids and back, through an encoding and its controls."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding import (
    Automaton,
    ByteData,
    Encoding,
    as_bytes,
    check_errors,
    control_start,
    pattern_automaton,
    scalars_to_text,
    valid_text_automaton,
)
from bytelm.errors import EncodingError
from bytelm.tokenizer.base import AllowedControls, BaseTokenizer


class Tokenizer(BaseTokenizer[np.uint8]):
    """Byte ids of text: the code words of ``encoding``, and of control strings where they are allowed.

    Control strings look like ``<|eos|>``. Text that comes from outside may hold one by accident or on purpose, so
    :meth:`encode` refuses it unless it is allowed by name; ``tokenizer.encoding.encode`` takes it as plain text.

    >>> tokenizer.encode("月<|eos|>", allowed_controls={"<|eos|>"})
    >>> tokenizer.encode("月<|eos|>")  # raises EncodingError

    Attributes:
        encoding: the encoding of text.
        vocab_size: 256; every id is a byte.
        pad_token, bos_token, eos_token: the control strings of these purposes.
    """

    vocab_size: Final = 256
    pad_token = "<|pad|>"
    bos_token = "<|bos|>"
    eos_token = "<|eos|>"
    begins_with_bos = True
    context_free = True

    def __init__(self, encoding: Encoding) -> None:
        super().__init__(encoding.controls)
        self.encoding = encoding
        self._control = re.compile("|".join(map(re.escape, self._controls)))

    def __repr__(self) -> str:
        return f"Tokenizer({self.encoding!r})"

    @property
    def name(self) -> str:
        """That of the encoding."""
        return self.encoding.name

    @property
    def digest(self) -> str:
        """That of the encoding."""
        return self.encoding.digest

    @property
    def unit(self) -> int:
        """That of the encoding."""
        return self.encoding.unit

    @property
    def eos_start(self) -> tuple[int, ...]:
        """The shortest beginning of EOS with which no code word of text begins."""
        return tuple(control_start(self.encoding, self.eos_token))

    def bos_patch(self, num_ids: int = 4) -> NDArray[np.uint8]:
        """The code word of BOS, repeated to ``num_ids``: uint8[num_ids].

        Raises:
            EncodingError: ``num_ids`` is no multiple of the word's length.
        """
        word = self.encoding.controls[self.bos_token]
        if num_ids < 0 or num_ids % len(word):
            raise EncodingError(
                f"num_ids: found {num_ids}, expected a multiple of {len(word)}, "
                f"the length of {self.bos_token} in {self.encoding.name}"
            )
        return np.tile(self._control_ids(self.bos_token), num_ids // len(word))

    def word_starts(self, ids: ByteData) -> NDArray[np.bool_]:
        """bool[n]: where a code word, a control or a malformed piece begins."""
        return self.encoding.char_starts(ids)

    def _make_automaton(self, pattern: str | None) -> Automaton:
        return valid_text_automaton(self.encoding) if pattern is None else pattern_automaton(self.encoding, pattern)

    # Encoding

    def _encode_rows(self, texts: Sequence[str], allowed_controls: AllowedControls) -> list[NDArray[np.uint8]]:
        if any("<|" in text for text in texts):
            return super()._encode_rows(texts, allowed_controls)
        self._allowed(allowed_controls)
        return self.encoding.encode_batch(texts)

    # Decoding

    def decode(
        self, ids: ByteData, *, errors: Literal["strict", "replace"] = "strict", skip_controls: bool = False
    ) -> str:
        """The text of ``ids``; controls become their strings, or nothing with ``skip_controls``.

        With ``errors="replace"`` every malformed piece becomes one U+FFFD, as the encoding cuts them.

        Raises:
            EncodingError: with ``errors="strict"``, at the first malformed piece, with its byte offset.
        """
        return self.decoder(errors, skip_controls=skip_controls).decode(ids, final=True)

    def decoder(self, errors: Literal["strict", "replace"] = "strict", *, skip_controls: bool = False) -> "ByteDecoder":
        """A decoder for bytes that come piece by piece, with the options of :meth:`decode`.

        Raises:
            EncodingError: another value of ``errors``.
        """
        return ByteDecoder(self, errors, skip_controls=skip_controls)

    def _decode(
        self, array: NDArray[np.uint8], errors: Literal["strict", "replace"], skip_controls: bool, offset: int
    ) -> str:
        values, starts = self.encoding.parse(array)
        certain = self.encoding.complete(array)
        values = self.encoding.settle(
            array, values, starts, errors, certain=certain, allow_controls=True, offset=offset
        )
        pieces = []
        end = 0
        for index in np.flatnonzero(values < 0):
            pieces.append(scalars_to_text(values[end:index]))
            if not skip_controls:
                pieces.append(self._controls[-1 - int(values[index])])
            end = int(index) + 1
        return "".join([*pieces, scalars_to_text(values[end:])])

    def _control_ids(self, control: str) -> NDArray[np.uint8]:
        return np.frombuffer(bytearray(self.encoding.controls[control]), dtype=np.uint8)

    def _encode_text(self, text: str, start: int, stop: int) -> NDArray[np.uint8]:
        try:
            return self.encoding.encode(text[start:stop])
        except EncodingError:
            # The index in the message must be one of the whole text, which has a surrogate at the same place.
            return self.encoding.encode(text)

    def _find_controls(self, text: str, allowed: frozenset[str]) -> Iterator[tuple[int, str]]:
        for match in self._control.finditer(text):
            if match.group() not in allowed:
                raise EncodingError(
                    f"text index {match.start()}: found the control string {match.group()}, expected text "
                    "without it (or its name in allowed_controls)"
                )
            yield match.start(), match.group()


class ByteDecoder:
    """Turns bytes into text as they come, whole characters only, each as soon as no later byte can change it.

    However the bytes are cut, the texts that :meth:`decode` returns add up to ``tokenizer.decode`` of all of them.
    After an error the decoder is as it was before that call.

    Args:
        tokenizer: knows the code words.
        errors: "strict" or "replace".
        skip_controls: whether controls become nothing instead of their strings.
    Attributes:
        offset: number of bytes that were decoded so far.
    Raises:
        EncodingError: another value of ``errors``.
    """

    def __init__(self, tokenizer: Tokenizer, errors: Literal["strict", "replace"], *, skip_controls: bool) -> None:
        check_errors(errors, ("strict", "replace"))
        self.tokenizer, self.errors, self.skip_controls = tokenizer, errors, skip_controls
        self.offset = 0
        self._held = np.empty(0, dtype=np.uint8)

    def decode(self, ids: ByteData = b"", *, final: bool = False) -> str:
        """The text that is certain now; ``final`` says that no byte follows, so that nothing is held back.

        Raises:
            EncodingError: as ``tokenizer.decode``; byte offsets count from the first byte of all.
        """
        array = np.concatenate([self._held, as_bytes(ids)]) if len(self._held) else as_bytes(ids)
        end = len(array) if final else self.tokenizer.encoding.complete(array)
        text = self.tokenizer._decode(array[:end], self.errors, self.skip_controls, self.offset)
        self._held = array[end:].copy()
        self.offset += end
        return text
