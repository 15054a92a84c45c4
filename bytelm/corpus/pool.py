"""Text to stored bytes, batch by batch: in this process, or in worker processes."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, final

import numpy as np

from bytelm.encoding import Encoding, code_points_of
from bytelm.errors import CorpusError
from bytelm.tokenizer import BOS_PATCH_BYTES, Tokenizer

_In = TypeVar("_In")
_Out = TypeVar("_Out")


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
class _BatchEncoder:
    """Batches to stored bytes."""

    def __init__(self, encoding: Encoding) -> None:
        tokenizer = Tokenizer(encoding)
        self._encoding = encoding
        self._bos = tokenizer.bos_patch(BOS_PATCH_BYTES).tobytes()
        self._eos = tokenizer.eos.tobytes()

    def __call__(self, batch: Batch) -> EncodedBatch:
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


EncodeBatches = Callable[[Iterator[Batch]], Iterator[EncodedBatch]]


@contextmanager
def batch_encoder(encoding: Encoding, workers: int) -> Iterator[EncodeBatches]:
    """What turns batches into stored bytes, in order and a few at a time: this process, or ``workers`` others.

    Raises:
        CorpusError: inside the context, when a worker process dies.
        EncodingError: the encoding's control words do not fill a BOS patch.
    """
    encode = _BatchEncoder(encoding)
    if workers == 0:
        yield lambda batches: map(encode, batches)
        return
    with worker_pool(workers, _start_worker, (encoding,)) as pool:
        yield lambda batches: in_order(pool, _encode_in_worker, batches, in_flight=2 * workers + 1)


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, spawned; ``initializer`` is called in each with ``arguments``. They end with the context.

    Raises:
        CorpusError: inside the context, when a worker process dies.
    """
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=initializer, initargs=arguments
    )
    try:
        yield pool
    except BrokenProcessPool:
        raise CorpusError(
            "a worker process ended before its work was done: out of memory, or a script that builds a corpus "
            'with workers outside of `if __name__ == "__main__":`'
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(
    pool: ProcessPoolExecutor, function: Callable[[_In], _Out], batches: Iterator[_In], in_flight: int
) -> Iterator[_Out]:
    """Results in the order of the batches, with a bounded number of batches under way."""
    waiting: deque[Future[_Out]] = deque()
    for batch in batches:
        waiting.append(pool.submit(function, batch))
        if len(waiting) >= in_flight:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which reaches the whole process group, to the parent: it alone ends the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_worker_encoder: _BatchEncoder | None = None


def _start_worker(encoding: Encoding) -> None:
    global _worker_encoder
    ignore_interrupts()
    _worker_encoder = _BatchEncoder(encoding)


def _encode_in_worker(batch: Batch) -> EncodedBatch:
    assert _worker_encoder is not None
    return _worker_encoder(batch)
