"""Input files, on this machine or behind any file system that fsspec knows: found, described and opened."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

from bytelm.config import Config
from bytelm.corpus.compression import COMPRESSIONS, DAMAGE
from bytelm.errors import BytelmError, CorpusError

FORMATS = (".jsonl", ".txt", ".parquet")
"""File name endings of the formats that are read, each alone or followed by one of ``COMPRESSIONS``."""

DATASET = "dataset://"
"""How the name of a data set of Hugging Face begins; see :mod:`bytelm.corpus.hub_datasets`."""

_EXPECTED_ENDINGS = f"{', '.join(FORMATS)}, each alone or followed by {', '.join(COMPRESSIONS)}"
_BUFFER_BYTES = 1 << 20
_VERSIONS = ("ETag", "etag", "md5Hash", "blob_id", "CRC", "Last-Modified", "LastModified", "last_modified", "mtime")
"""Entries that file systems have for what changes with a file; the first that is there counts."""


@final
@dataclass(frozen=True, kw_only=True)
class SourceFile(Config):
    """A file to read, or a shard of a data set.

    Attributes:
        name: a path, a URL, or ``dataset://NAME?split=SPLIT&shard=I/N``.
        bytes: its size as it is stored; None where that is not known.
        version: a text that changes when the file does: a time, or what its file system has as a checksum.
    """

    name: str
    bytes: int | None
    version: str

    def __str__(self) -> str:
        return self.name

    @property
    def num_bytes(self) -> int:
        """Its size, 0 where that is not known."""
        return self.bytes or 0

    @property
    def remote(self) -> bool:
        """Whether it is a URL."""
        return "://" in self.name

    @property
    def endings(self) -> tuple[str, str] | None:
        """The format and the compression that its name ends in, or None."""
        return _endings(self.name)

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """The file, opened for reading bytes."""
        if not self.remote:
            with Path(self.name).open("rb") as raw:
                yield raw
            return
        system, path = _file_system(self.name)
        with system.open(path, "rb") as remote, io.BufferedReader(remote, _BUFFER_BYTES) as raw:
            yield raw


def find_sources(paths: str | Path | Sequence[str | Path]) -> list[SourceFile]:
    """The files to read: files as given, and of each folder all files of a known ending at any depth, sorted by path.

    A path with ``://`` is a URL of any file system that fsspec knows (``s3://``, ``gs://``, ``hf://``, ``https://``,
    ``zip://…::…``), a ``*`` in it stands for any characters, and it is a folder unless it has a known ending;
    ``dataset://NAME?split=SPLIT`` is a data set, whose shards are listed.

    Raises:
        CorpusError: no path, one that does not exist, a file with an unknown ending, a folder without a file to read,
            a file system that cannot be reached or whose package is not installed.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    if not paths:
        raise CorpusError("found no path to read from, expected files or folders")
    sources: list[SourceFile] = []
    for path in paths:
        name = str(path)
        if name.startswith(DATASET):
            from bytelm.corpus.hub_datasets import find_shards  # what it needs is an extra

            with explained(name):
                sources += find_shards(name)
        elif "://" in name:
            with explained(name):
                sources += _find_remote(name)
        elif Path(path).is_dir():
            found = sorted(p for p in Path(path).rglob("*") if _endings(p.name) is not None and p.is_file())
            sources += _none_missing(name, [_local(p) for p in found])
        else:
            sources.append(_local(Path(path)))
    return sources


def find_source(path: str | Path) -> SourceFile:
    """The one file of this path or URL.

    Raises:
        CorpusError: as :func:`find_sources`, and where there are several.
    """
    if "://" not in str(path):
        return _local(Path(path))
    sources = find_sources(path)
    if len(sources) > 1:
        raise CorpusError(f"{path}: found {len(sources)} files, expected one")
    return sources[0]


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Raise what goes wrong with a source as one line that names it.

    Raises:
        CorpusError: instead of what the system raises, what damage raises, and whatever the driver of a remote file
            system raises.
    """
    try:
        yield
    except BytelmError:
        raise
    except DAMAGE as error:
        raise CorpusError(f"{name}: found a truncated or altered compressed file ({error})") from None
    except FileNotFoundError:
        raise CorpusError(f"{name}: no such file or folder") from None
    except OSError as error:
        raise CorpusError(f"{name}: {error.strerror or _one_line(error)}") from None
    except ImportError as error:
        if "://" not in name:
            raise
        extra = "datasets" if name.startswith(DATASET) else "remote"
        raise CorpusError(f"{name}: {_one_line(error)}; `pip install 'bytelm[{extra}]'` installs it") from None
    except Exception as error:
        if "://" not in name:
            raise
        raise CorpusError(f"{name}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _endings(name: str) -> tuple[str, str] | None:
    inner = name.partition("::")[0].partition("?")[0] if "://" in name else name
    *_, before, last = "", "", *(suffix.lower() for suffix in PurePosixPath(inner).suffixes)
    if last in FORMATS:
        return last, ""
    return (before, last) if last in COMPRESSIONS and before in FORMATS else None


def _check_ending(name: str) -> None:
    if _endings(name) is None:
        found = "".join(PurePosixPath(name).suffixes[-2:])
        raise CorpusError(f"{name}: found the ending {found!r}, expected {_EXPECTED_ENDINGS}")


def _none_missing(name: str, found: list[SourceFile]) -> list[SourceFile]:
    if not found:
        raise CorpusError(f"{name}: found no file to read in this folder, expected {_EXPECTED_ENDINGS}")
    return found


def _local(path: Path) -> SourceFile:
    if not path.exists():
        raise CorpusError(f"{path}: no such file or folder")
    if not path.is_file():
        raise CorpusError(f"{path}: not a file")
    _check_ending(str(path))
    state = path.stat()
    return SourceFile(name=str(path), bytes=state.st_size, version=str(state.st_mtime_ns))


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # only where there is a URL: a local build needs no part of it

    if any(part.startswith("reference://") or part == "reference" for part in url.split("::")):
        raise CorpusError(
            f"{url}: found a reference file system, which renders templates of its files, expected another"
        )

    return fsspec.core.url_to_fs(url)


def _find_remote(url: str) -> list[SourceFile]:
    system, path = _file_system(url)
    if "*" in path:
        found = system.glob(path, detail=True)
    elif _endings(url) is not None:
        return [_described(url, system.info(path))]
    elif system.isdir(path):
        found = system.find(path, detail=True)
    else:
        system.info(path)  # raises where there is none
        _check_ending(url)
        found = {}
    _, chain, rest = url.partition("::")
    files = [
        _described(system.unstrip_protocol(name) + chain + rest, state)
        for name, state in sorted(found.items())
        if state["type"] == "file"
    ]
    return _none_missing(url, [file for file in files if file.endings is not None])


def _described(name: str, state: Mapping[str, Any]) -> SourceFile:
    version = next((str(state[key]) for key in _VERSIONS if state.get(key) is not None), "")
    return SourceFile(name=name, bytes=state.get("size"), version=version)
