"""Text to stored bytes, batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from bytelm.corpus.readers import Piece, cut_piece
from bytelm.encoding import Encoding, code_points_of
from bytelm.tokenizer import BOS_PATCH_BYTES, Tokenizer

BATCH_CHARACTERS = 1 << 18


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """Text of consecutive pieces. At the characters ``marks`` documents begin and end in turn; ``inside`` says that
    the first of them is an end, because a document that an earlier batch began goes on.
    """

    text: str
    marks: list[int]
    inside: bool


@final
@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch as a part of the stored stream."""

    data: bytes
    documents: int
    characters: int
    utf8_bytes: int


@final
class BatchEncoder:
    """Batches to stored bytes.

    Raises:
        EncodingError: the encoding's control words do not fill a BOS patch.
    """

    def __init__(self, encoding: Encoding) -> None:
        tokenizer = Tokenizer(encoding)
        self._encoding = encoding
        self._bos = tokenizer.bos_patch(BOS_PATCH_BYTES).tobytes()
        self._eos = tokenizer.eos.tobytes()

    def __call__(self, batch: Batch) -> EncodedBatch:
        """Encode the text, and put BOS patches and EOS where its documents begin and end."""
        # one call for all documents of the batch, then cut: a call for each is slow where they are short
        data = self._encoding.encode(batch.text).data
        ends = np.cumsum(self._encoding.lengths[code_points_of(batch.text)], dtype=np.int64)
        offsets = np.concatenate([[0], ends])[batch.marks]
        parts: list[bytes | memoryview] = []
        start, inside, documents = 0, batch.inside, 0
        for offset in offsets.tolist():
            parts += (data[start:offset], self._eos if inside else self._bos)
            documents += inside
            start, inside = offset, not inside
        parts.append(data[start:])
        return EncodedBatch(
            data=b"".join(parts),
            documents=documents,
            characters=len(batch.text),
            utf8_bytes=len(batch.text.encode("utf-8")),
        )


@final
class Batcher:
    """Collects pieces of documents into batches of about ``BATCH_CHARACTERS`` characters."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._marks: list[int] = []
        self._size, self._inside = 0, False

    def add(self, piece: Piece) -> Iterator[Batch]:
        """Take a piece; the batches that it fills."""
        for part in cut_piece(piece, BATCH_CHARACTERS):
            # documents without a character count as well, or a batch of them would never be full
            if self._size + len(self._marks) >= BATCH_CHARACTERS:
                yield self._batch()
                self._inside = not part.begins
            if part.begins:
                self._marks.append(self._size)
            self._texts.append(part.text)
            self._size += len(part.text)
            if part.ends:
                self._marks.append(self._size)

    def rest(self) -> Iterator[Batch]:
        """What is not in a batch yet, if it is anything."""
        if self._texts:
            yield self._batch()

    def _batch(self) -> Batch:
        batch = Batch("".join(self._texts), self._marks, self._inside)
        self._texts, self._marks, self._size, self._inside = [], [], 0, False
        return batch
