"""The texts of a corpus, read back from its bytes."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from bytelm.corpus.corpus import Corpus
from bytelm.encoding import scalars_to_text
from bytelm.errors import CorpusError, EncodingError
from bytelm.tokenizer import Tokenizer

_BLOCK_BYTES = 1 << 20


def iter_texts(corpus: Corpus) -> Iterator[str]:
    """The documents of a corpus, as they were before they were encoded, in order; about a megabyte is held at a time.

    Raises:
        CorpusError: bytes that are no text in the encoding; names their offset in the stream.
    """
    encoding, names = corpus.encoding, list(corpus.encoding.controls)
    eos = -1 - names.index(Tokenizer.eos_token)
    held, parts = np.empty(0, np.uint8), list[str]()
    for begin in range(0, corpus.num_bytes, _BLOCK_BYTES):
        end = min(begin + _BLOCK_BYTES, corpus.num_bytes)
        data = np.concatenate((held, corpus.read(begin, end)))
        offset = end - len(data)
        certain = len(data) if end == corpus.num_bytes else encoding.complete(data)
        values, starts = encoding.parse(data[:certain])
        try:
            values = encoding.settle(
                data[:certain], values, starts, "strict", certain=certain, allow_controls=True, offset=offset
            )
        except EncodingError as error:
            raise CorpusError(f"{corpus.folder}: {error}") from None
        held = data[certain:]
        marks = np.flatnonzero(values < 0).tolist()
        for mark, following in pairwise([-1, *marks, len(values)]):
            if mark >= 0 and values[mark] == eos:
                yield "".join(parts)
                parts = []
            parts.append(scalars_to_text(values[mark + 1 : following]))
