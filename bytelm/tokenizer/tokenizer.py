"""Text to byte ids and back, through an encoding and its controls."""

from collections.abc import Collection, Sequence
from typing import Final, Literal

import numpy as np
import regex
from numpy.typing import NDArray

from bytelm.encoding import ByteData, Encoding, as_bytes, check_errors, scalars_to_text
from bytelm.errors import EncodingError
from bytelm.tokenizer.batch import Batch, PaddingSide, pad

AllowedControls = Collection[str] | Literal["all"]


class Tokenizer:
    """Byte ids of text: the code words of ``encoding``, and of control strings where they are allowed.

    Control strings look like ``<|eos|>``. Text that comes from outside may hold one by accident or on purpose, so
    :meth:`encode` refuses it unless it is allowed by name; ``tokenizer.encoding.encode`` takes it as plain text.

    Attributes:
        encoding: the encoding of text.
        vocab_size: 256; every id is a byte.
        pad_token, bos_token, eos_token: the control strings of these purposes.
    """

    vocab_size: Final = 256
    pad_token: Final = "<|pad|>"
    bos_token: Final = "<|bos|>"
    eos_token: Final = "<|eos|>"

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self._controls = tuple(encoding.controls)
        self._control = regex.compile(r"\L<controls>", controls=list(self._controls))

    def __repr__(self) -> str:
        return f"Tokenizer({self.encoding!r})"

    @property
    def eos(self) -> NDArray[np.uint8]:
        """The code word of EOS: uint8[unit]."""
        return self._word(self.eos_token)

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
        return np.tile(self._word(self.bos_token), num_bytes // len(word))

    # Encoding

    def encode(self, text: str, *, allowed_controls: AllowedControls = ()) -> NDArray[np.uint8]:
        """The ids of ``text``: uint8[n]. Allowed control strings become their code words.

        >>> tokenizer.encode("月<|eos|>", allowed_controls={"<|eos|>"})
        >>> tokenizer.encode("月<|eos|>")  # raises EncodingError

        Args:
            text: any text.
            allowed_controls: the control strings that may stand in ``text``, or "all".
        Raises:
            EncodingError: a control string that is not allowed, or a lone surrogate, with its index in ``text``.
        """
        allowed = self._allowed(allowed_controls)
        parts = []
        end = 0
        for match in self._control.finditer(text):
            if match.group() not in allowed:
                raise EncodingError(
                    f"text index {match.start()}: found the control string {match.group()}, expected text "
                    "without it (or its name in allowed_controls)"
                )
            parts += [self._encode_text(text, end, match.start()), self._word(match.group())]
            end = match.end()
        parts.append(self._encode_text(text, end, len(text)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        padding_side: PaddingSide = "right",
        allowed_controls: AllowedControls = (),
    ) -> Batch:
        """The ids of several texts, padded with the code word of PAD to the longest.

        Raises:
            EncodingError: as :meth:`encode`, with the index of the text in ``texts``.
        """
        if any("<|" in text for text in texts):
            rows = []
            for number, text in enumerate(texts):
                try:
                    rows.append(self.encode(text, allowed_controls=allowed_controls))
                except EncodingError as error:
                    raise EncodingError(f"text {number}: {error}") from None
        else:
            self._allowed(allowed_controls)
            rows = self.encoding.encode_batch(texts)
        return pad(rows, self.encoding.controls[self.pad_token], padding_side)

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

    def decode_batch(
        self,
        batch: Batch | Sequence[ByteData] | NDArray[np.uint8],
        *,
        errors: Literal["strict", "replace"] = "strict",
        skip_controls: bool = False,
    ) -> list[str]:
        """The text of every row. Padding of a :class:`Batch` is left out; other rows are decoded whole.

        Raises:
            EncodingError: as :meth:`decode`, with the number of the row.
        """
        texts = []
        for number, ids in enumerate(batch.rows() if isinstance(batch, Batch) else batch):
            try:
                texts.append(self.decode(ids, errors=errors, skip_controls=skip_controls))
            except EncodingError as error:
                raise EncodingError(f"row {number}: {error}") from None
        return texts

    def _word(self, control: str) -> NDArray[np.uint8]:
        return np.frombuffer(bytearray(self.encoding.controls[control]), dtype=np.uint8)

    def _encode_text(self, text: str, start: int, stop: int) -> NDArray[np.uint8]:
        try:
            return self.encoding.encode(text[start:stop])
        except EncodingError:
            # The index in the message must be one of the whole text, which has a surrogate at the same place.
            return self.encoding.encode(text)

    def _allowed(self, controls: AllowedControls) -> frozenset[str]:
        if isinstance(controls, str):
            if controls != "all":
                raise EncodingError(f"allowed_controls: found {controls!r}, expected 'all' or a collection of controls")
            return frozenset(self._controls)
        unknown = sorted(set(controls) - set(self._controls))
        if unknown:
            raise EncodingError(f"allowed_controls: found {unknown[0]!r}, expected some of {', '.join(self._controls)}")
        return frozenset(controls)
