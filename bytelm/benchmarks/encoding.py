"""Speed and memory of encodings against tokenizers, on one thread and on the same text in one run."""

import contextlib
import dataclasses
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from bytelm.benchmarks.coders import Coder, one_thread
from bytelm.encoding import get_encoding
from bytelm.errors import EncodingError

REFERENCES = ("tiktoken", "tokenizers")
"""The rivals that everything is compared with, where they are measured."""

RIVAL_PIECE = 16_384
"""Characters: rivals get the text in pieces of this length, which is no slower for them than one long string."""

SHORT_CHARACTERS = 30
_MAX_SHORT = 20_000
_PROBE_CHARACTERS, _PROBE_STRINGS = 16_384, 100

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class CodingSpeed:
    """One coder, measured. MB are 10^6 bytes of the UTF-8 form of the text, whatever the coder makes of it.

    Attributes:
        name: of the coder.
        kind: ``ceiling``, ``encoding`` or ``rival``.
        utf8_bytes: UTF-8 bytes of the part of the text that it was measured on.
        encode_mb_per_second: median over the repeats.
        decode_mb_per_second: likewise.
        encode_ratios: encoding speed over that of each of ``REFERENCES`` that was measured; the median of the ratios of
            runs that took turns.
        decode_ratios: likewise.
        symbols_per_character: bytes, or tokens, for each character.
        strings_per_second: strings of ``SHORT_CHARACTERS`` characters encoded, in one call where the coder can.
        exact: whether decoding gave the text back. An encoding of ours that does not is an error.
    """

    name: str
    kind: str
    utf8_bytes: int
    encode_mb_per_second: float
    decode_mb_per_second: float
    encode_ratios: Mapping[str, float]
    decode_ratios: Mapping[str, float]
    symbols_per_character: float
    strings_per_second: float
    exact: bool


@dataclasses.dataclass(frozen=True)
class CodingMemory:
    """Peak of the memory allocated during one call, its result included, over the UTF-8 size of the text.

    Attributes:
        name: of the coder.
        text: the kind of text.
        utf8_bytes: its size.
        encode: peak while encoding, as a multiple of that size.
        decode: peak while decoding, likewise.
    """

    name: str
    text: str
    utf8_bytes: int
    encode: float
    decode: float


def repeat_text(text: str, utf8_bytes: int) -> str:
    """``text`` from its beginning, again and again: as many whole characters as fit in so many bytes of UTF-8.

    Raises:
        EncodingError: ``text`` is empty, or less than one character of it fits.
    """
    data = text.encode("utf-8")
    if not data:
        raise EncodingError("text to measure on: found no character, expected at least one")
    times = -(-utf8_bytes // len(data))
    cut = (data * times)[:utf8_bytes]
    whole = cut[: get_encoding("utf8").complete(cut)].decode("utf-8")
    if not whole:
        raise EncodingError(f"text to measure on: found a size of {utf8_bytes} bytes, expected at least one character")
    return whole


def measure_coding(coders: Sequence[Coder], text: str, *, repeats: int = 5, seconds: float = 60.0) -> list[CodingSpeed]:
    """Encode and decode ``text`` with every coder.

    The coders take turns in each repeat, after a warm-up, so that a machine whose speed drifts is fair to all. A coder
    that would need more than its share of ``seconds`` gets the beginning of the text. Encodings and Python's codec
    get the text as one string, rivals in pieces of ``RIVAL_PIECE`` characters, their threads switched off.

    Raises:
        EncodingError: an encoding of ours does not give the text back.
    """
    share = seconds / (repeats * len(coders))
    short = [text[i : i + SHORT_CHARACTERS] for i in range(0, len(text), SHORT_CHARACTERS)][:_MAX_SHORT]
    with one_thread(), _no_collection():
        runs = [_Runs(coder, text, short, share) for coder in coders]
        for _ in range(repeats):
            for run in runs:
                run.once()
    references = {run.coder.name: run for run in runs if run.coder.name in REFERENCES}
    return [run.speed(references) for run in runs]


def measure_memory(coders: Sequence[Coder], texts: Mapping[str, str]) -> list[CodingMemory]:
    """Peak memory of the encoding and of the decoding of each text (name to text), by ``tracemalloc``.

    It sees what Python and numpy allocate, in native code too where that asks them for its arrays and strings. What
    other native code takes for itself is not seen, so only encodings of ours should be measured.
    """
    found = []
    for coder in coders:
        for name, text in texts.items():
            size = len(text.encode("utf-8"))
            symbols = coder.encode(text)
            coder.decode(symbols)  # tables that are built on first use are no part of a call
            encode = _peak(coder.encode, text)
            found.append(CodingMemory(coder.name, name, size, encode / size, _peak(coder.decode, symbols) / size))
    return found


class _Runs:
    """The runs of one coder so far: seconds of each."""

    def __init__(self, coder: Coder, text: str, short: list[str], share: float) -> None:
        self.coder, self.exact = coder, True
        part, strings = text[:_PROBE_CHARACTERS], short[:_PROBE_STRINGS]
        self._code(self._pieces(part))
        encode, decode, _ = self._code(self._pieces(part))
        characters = max(len(part), int(len(part) * 0.8 * share / (encode + decode)))
        self._encode_short(strings)
        needed = self._encode_short(strings)
        self.short = short[: max(len(strings), int(len(strings) * 0.2 * share / needed))]
        self.text = text[:characters]
        self.utf8_bytes = len(self.text.encode("utf-8"))
        self.num_symbols = 0
        self.encode: list[float] = []
        self.decode: list[float] = []
        self.strings: list[float] = []

    def once(self) -> None:
        """One turn."""
        pieces = self._pieces(self.text)
        encode, decode, self.num_symbols = self._code(pieces)
        self.encode.append(self.utf8_bytes / encode / 1e6)
        self.decode.append(self.utf8_bytes / decode / 1e6)
        self.strings.append(len(self.short) / self._encode_short(self.short))

    def speed(self, references: Mapping[str, "_Runs"]) -> CodingSpeed:
        """The medians of the turns, and of the ratios to the references in the same turns."""
        return CodingSpeed(
            self.coder.name,
            self.coder.kind,
            self.utf8_bytes,
            statistics.median(self.encode),
            statistics.median(self.decode),
            {name: _median_ratio(self.encode, other.encode) for name, other in references.items()},
            {name: _median_ratio(self.decode, other.decode) for name, other in references.items()},
            self.num_symbols / len(self.text),
            statistics.median(self.strings),
            self.exact,
        )

    def _pieces(self, text: str) -> list[str]:
        step = RIVAL_PIECE if self.coder.kind == "rival" else len(text)
        return [text[i : i + step] for i in range(0, len(text), step)]

    def _code(self, pieces: list[str]) -> tuple[float, float, int]:
        """Seconds to encode, seconds to decode, number of symbols."""
        encode, decode = self.coder.encode, self.coder.decode
        encode_s, symbols = _timed(lambda: [encode(piece) for piece in pieces])
        decode_s, decoded = _timed(lambda: [decode(part) for part in symbols])
        if decoded != pieces:
            self.exact = False
            if self.coder.kind == "encoding":
                raise EncodingError(f"{self.coder.name}: found another text after decoding, expected the one encoded")
        return encode_s, decode_s, sum(map(len, symbols))

    def _encode_short(self, strings: list[str]) -> float:
        encode, batch = self.coder.encode, self.coder.encode_batch
        return _timed(lambda: batch(strings) if batch else [encode(text) for text in strings])[0]


def _timed(call: Callable[[], _T]) -> tuple[float, _T]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _peak(call: Callable[[Any], object], argument: object) -> int:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call(argument)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection while the clock runs: it would charge lists of integers for all that is alive."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
