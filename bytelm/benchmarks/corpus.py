"""Speed of the build of a corpus, by format of its sources and by option."""

import gzip
import hashlib
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from bytelm.benchmarks.timing import take_turns
from bytelm.corpus import Manifest, build_corpus
from bytelm.encoding import Encoding

_FILES = 8
_HASHED_BYTES = 1 << 26


@dataclass(frozen=True)
class BuildSpeed:
    """One way to build a corpus, measured. MB are 10^6 bytes of the UTF-8 form of the text.

    Attributes:
        name: format of the sources, or the option that is added to plain JSON lines.
        workers: processes that read, encode and write.
        mb_per_second: median over the runs, of the whole build.
        mb_per_cpu_second: likewise, by the time that processors worked for it in all processes: the rate of a core.
        stored_bytes: of the corpus.
    """

    name: str
    workers: int
    mb_per_second: float
    mb_per_cpu_second: float
    stored_bytes: int


@dataclass(frozen=True)
class BuildSpeeds:
    """All that was measured on one text.

    Attributes:
        utf8_bytes: of the text.
        documents: of the text.
        sha256_mb_per_second: rate of the hash that every shard needs, alone, in stored bytes.
        rows: of each way.
    """

    utf8_bytes: int
    documents: int
    sha256_mb_per_second: float
    rows: list[BuildSpeed]


def measure_builds(documents: Sequence[str], encoding: Encoding, *, workers: int = 1, repeats: int = 3) -> BuildSpeeds:
    """Build the same corpus from sources of each format, and from plain JSON lines with each option.

    Sources and corpora are in a temporary folder. Every way is run in this process, taking turns; with more than one
    worker plain JSON lines in ``_FILES`` files are also built by that many processes, whose start is part of it.
    """
    utf8_bytes = sum(len(text.encode("utf-8")) for text in documents)
    shard_bytes = max(1, utf8_bytes // _FILES)  # so that each file is a part of its own
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = folder / "in.jsonl"
        ways: dict[tuple[str, int], tuple[Path, Mapping[str, Any]]] = {}
        for ending in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"):
            ways[ending, 1] = _write(folder / f"in{ending}", documents), {}
        ways["--valid-share 0.5", 1] = plain, {"valid_share": 0.5}
        ways["--deduplicate", 1] = plain, {"deduplicate": True}
        if workers > 1:
            ways[".jsonl", workers] = (
                _write_many(folder / "many", documents),
                {"workers": workers, "shard_bytes": shard_bytes},
            )
        cases = {way: _case(source, encoding, folder / "out", options) for way, (source, options) in ways.items()}
        runs = take_turns(cases, repeats)
    rows = []
    for (way, count), found in runs.items():
        speed = statistics.median(utf8_bytes / seconds / 1e6 for seconds, _, _ in found)
        of_a_core = statistics.median(utf8_bytes / seconds / 1e6 for _, seconds, _ in found)
        rows.append(BuildSpeed(way, count, speed, of_a_core, found[0][2]))
    return BuildSpeeds(utf8_bytes, len(documents), _hash_rate(), rows)


def _case(
    source: Path, encoding: Encoding, out: Path, options: Mapping[str, Any]
) -> Callable[[], tuple[float, float, int]]:
    """Seconds of a build, seconds of processors, and the bytes that it stored."""

    def run() -> tuple[float, float, int]:
        began, worked = time.perf_counter(), _worked()
        manifest: Manifest = build_corpus(source, encoding, out, overwrite=True, **options)
        return time.perf_counter() - began, _worked() - worked, manifest.bytes

    return run


def _worked() -> float:
    """Seconds of processors so far, of this process and of those that it started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _lines(documents: Sequence[str]) -> Iterator[bytes]:
    for text in documents:
        yield json.dumps({"text": text}, ensure_ascii=False).encode("utf-8") + b"\n"


def _write(path: Path, documents: Sequence[str]) -> Path:
    data = b"".join(_lines(documents))
    match path.suffix:
        case ".parquet":
            import pyarrow as pa  # slow to import, and seldom needed
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"text": documents}), path)
        case ".gz":
            path.write_bytes(gzip.compress(data, 6))
        case ".zst":
            path.write_bytes(zstandard.compress(data))
        case _:
            path.write_bytes(data)
    return path


def _write_many(folder: Path, documents: Sequence[str]) -> Path:
    folder.mkdir()
    for index in range(_FILES):
        _write(folder / f"{index}.jsonl", documents[index::_FILES])
    return folder


def _hash_rate() -> float:
    data = bytes(_HASHED_BYTES)
    began = time.perf_counter()
    hashlib.sha256(data).digest()
    return _HASHED_BYTES / (time.perf_counter() - began) / 1e6
