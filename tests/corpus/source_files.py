"""Writes source files of every format and compression, with other code than the readers use."""

import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import strategies as st

from bytelm.encoding import Encoding

ENDINGS = [form + packing for form in (".jsonl", ".txt", ".parquet") for packing in ("", ".gz", ".xz", ".zst")]

TEXTS = ["朝は霧、昼は晴れ。", "", "two lines\nand a tab\t", "🐟と🍚\u2028と\x85と\x00", "<|eos|> ではない"]

texts = st.text(st.characters(exclude_categories=["Cs"]))


def compress(data: bytes, path: Path) -> bytes:
    match path.suffix:
        case ".gz":
            return gzip.compress(data)
        case ".xz":
            return lzma.compress(data)
        case ".zst":
            return zstandard.compress(data)
        case _:
            return data


def write_lines(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(compress(b"\n".join(lines) + b"\n", path))
    return path


def json_line(text: str, ensure_ascii: bool = False) -> bytes:
    return json.dumps({"id": 7, "text": text}, ensure_ascii=ensure_ascii).encode()


def write_source(path: Path, documents: list[str]) -> Path:
    """A file that holds these documents; a plain text file holds one."""
    kind = path.name.split(".")[1]
    if kind == "jsonl":
        return write_lines(path, [json_line(text) for text in documents])
    if kind == "txt":
        (text,) = documents
        path.write_bytes(compress(text.encode(), path))
        return path
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": range(len(documents)), "text": documents}), sink, row_group_size=3)
    path.write_bytes(compress(sink.getvalue().to_pybytes(), path))
    return path


def stored_stream(encoding: Encoding, documents: list[str]) -> bytes:
    """What a corpus of these documents holds, one character at a time."""
    bos, eos = encoding.controls["<|bos|>"], encoding.controls["<|eos|>"]
    stream = b""
    for text in documents:
        stream += bos * (4 // len(bos)) + b"".join(encoding.encode(c).tobytes() for c in text) + eos
    return stream


def documents_in(encoding: Encoding, stream: bytes) -> list[str]:
    """The documents of a stored stream, found by its controls."""
    values, starts = encoding.parse(stream)
    bos, eos = (-1 - list(encoding.controls).index(name) for name in ("<|bos|>", "<|eos|>"))
    documents, begin = [], 0
    for value, start in zip(values.tolist(), starts.tolist(), strict=True):
        if value == bos:
            begin = start + len(encoding.controls["<|bos|>"])
        elif value == eos:
            documents.append(encoding.decode(stream[begin:start]))
    return documents
