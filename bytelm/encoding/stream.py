"""Decoding of bytes that come piece by piece."""

from typing import TYPE_CHECKING

import numpy as np

from bytelm.encoding.convert import ByteData, as_bytes

if TYPE_CHECKING:
    from bytelm.encoding.base import Encoding, Errors


class StreamingDecoder:
    """Turns bytes into text as they come, whole characters only, each as soon as no later byte can change it.

    However the bytes are cut, the texts that :meth:`decode` returns add up to ``encoding.decode`` of all of them. With
    ``errors="strict"`` the first malformed piece raises what ``encoding.decode`` of everything would raise, as soon as
    it is certain; the decoder is then as it was before that call.

    Args:
        encoding: decodes.
        errors: as for ``Encoding.decode``.
    Attributes:
        offset: number of bytes that were decoded so far.
    """

    def __init__(self, encoding: "Encoding", errors: "Errors" = "strict") -> None:
        self.encoding, self.errors = encoding, errors
        self.offset = 0
        self._held = np.empty(0, dtype=np.uint8)

    @property
    def pending(self) -> bytes:
        """The bytes that wait for others: at most ``max_word - 1``."""
        return self._held.tobytes()

    def decode(self, data: ByteData = b"", *, final: bool = False) -> str:
        """The text that is certain now; ``final`` says that no byte follows, so that nothing is held back.

        Raises:
            EncodingError: as ``Encoding.decode``; byte offsets count from the first byte of all.
        """
        array = np.concatenate([self._held, as_bytes(data)])
        end = len(array) if final else self.encoding.complete(array)
        text = self.encoding.decode_part(array[:end], self.errors, offset=self.offset, final=final)
        self._held = array[end:]
        self.offset += end
        return text
