"""Text to byte ids and back, through an encoding and its controls."""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import numpy as np
import regex
from numpy.typing import NDArray

from bytelm.encoding import ByteData, Encoding, as_bytes, check_errors, scalars_to_text
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

    def __init__(self, encoding: Encoding) -> None:
        super().__init__(encoding.controls)
        self.encoding = encoding
        self._control = regex.compile(r"\L<controls>", controls=list(self._controls))

    def __repr__(self) -> str:
        return f"Tokenizer({self.encoding!r})"

    def bos_patch(self, num_bytes: int = 4) -> NDArray[np.uint8]:
        """The code word of BOS, repeated to ``num_bytes``: uint8[num_bytes].

        Raises:
            EncodingError: ``num_bytes`` is no multiple of the word's length.
        """
        word = self.encoding.controls[self.bos_token]
        if num_bytes < 0 or num_bytes % len(word):
            raise EncodingError(
                f"num_bytes: found {num_bytes}, expected a multiple of {len(word)}, "
                f"the length of {self.bos_token} in {self.encoding.name}"
            )
        return np.tile(self._control_ids(self.bos_token), num_bytes // len(word))

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
        check_errors(errors, ("strict", "replace"))
        array = as_bytes(ids)
        values, starts = self.encoding.parse(array)
        certain = self.encoding.complete(array)
        values = self.encoding.settle(array, values, starts, errors, certain=certain, allow_controls=True)
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
