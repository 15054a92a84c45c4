"""General compressors as rivals: bits per character of a text that comes after another one."""

import lzma
from collections.abc import Callable, Iterable

import zstandard

_LARGEST_WINDOW_LOG, _LARGEST_DICTIONARY = 27, 1 << 30


def xz_bytes(data: bytes, before: bytes = b"") -> int:
    """Bytes that ``xz -9e`` needs for ``data`` after ``before``.

    The format has no dictionaries: it is the size of both together less that of ``before`` alone, with a window that
    holds both. The few bytes of frame and checksum count once, with ``before``.
    """
    together = _xz(before + data)
    return together - _xz(before) if before else together


def zstd_bytes(data: bytes, before: bytes = b"") -> int:
    """Bytes that ``zstd -19`` needs for ``data``, with ``before`` as a dictionary of raw content and a window that
    reaches back over it.
    """
    window_log = min(_LARGEST_WINDOW_LOG, max(10, (len(before) + len(data)).bit_length()))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, source_size=len(data), dict_size=len(before), window_log=window_log, enable_ldm=bool(before)
    )
    known = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if before else None
    compressed = zstandard.ZstdCompressor(dict_data=known, compression_params=parameters).compress(data)
    assert zstandard.ZstdDecompressor(dict_data=known, max_window_size=1 << window_log).decompress(compressed) == data
    return len(compressed)


def bits_per_char(compress: Callable[[bytes, bytes], int], texts: Iterable[str], before: Iterable[str] = ()) -> float:
    """Bits of the texts in UTF-8, a newline after each, per character of them; newlines between them are not counted.

    Args:
        compress: :func:`xz_bytes` or :func:`zstd_bytes`.
        texts: with a character at least.
        before: texts that the decoder has.
    """
    texts = list(texts)
    joined, known = ("".join(text + "\n" for text in some).encode() for some in (texts, before))
    return 8 * compress(joined, known) / sum(map(len, texts))


def _xz(data: bytes) -> int:
    size = min(_LARGEST_DICTIONARY, max(1 << 20, len(data)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))
