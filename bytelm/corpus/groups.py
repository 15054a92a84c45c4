"""Documents in named groups (languages, genres), whole or one side of a fixed split."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, final

from bytelm.corpus.files import SourceFile, find_sources
from bytelm.corpus.readers import Document, OnBadLine, iter_documents, refuse_bad_line
from bytelm.errors import CorpusError

TEST_SHARE = 10
"""One document in this many is on the test side of the split."""

Side = Literal["all", "train", "test"]
_ID_FIELD = "id"


@final
@dataclass(frozen=True, slots=True)
class GroupSource:
    """A file, folder or URL, the group that its documents belong to, and the side of the split that is read.

    With ``name`` None the group of a document is the value of the field that groups, or else the file's name up to its
    first dot.
    """

    path: str | Path
    name: str | None = None
    side: Side = "all"

    @classmethod
    def parse(cls, text: str) -> "GroupSource":
        """``[NAME=]PATH[@train|@test]``.

        >>> GroupSource.parse("code=data/code_small.jsonl.xz@test")

        Raises:
            CorpusError: no path in ``text``.
        """
        name, equals, rest = text.partition("=")
        if not equals or "/" in name or ":" in name:
            name, rest = "", text
        path, at, side = rest.rpartition("@")
        if at and side in ("train", "test"):
            rest = path
        else:
            side = "all"
        if not rest:
            raise CorpusError(f"{text!r}: found no path, expected [NAME=]PATH[@train|@test]")
        return cls(rest if "://" in rest else Path(rest), name or None, side)  # type: ignore[arg-type]

    def group_of(self, file: SourceFile, label: str | None) -> str:
        """The group of a document of ``file`` whose grouping field has the value ``label``."""
        return self.name or label or PurePath(file.name).name.split(".")[0]

    def takes(self, key: str) -> bool:
        """Whether a document with this id (without one: with this text) is on the side that is read."""
        return self.side == "all" or in_test(key) == (self.side == "test")


def in_test(key: str) -> bool:
    """Whether the document with this id is on the test side: BLAKE2b of the id, modulo ``TEST_SHARE``, is 0."""
    digest = hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % TEST_SHARE == 0


def iter_groups(
    sources: Sequence[GroupSource],
    *,
    by: str | None = None,
    field: str = "text",
    on_bad_line: OnBadLine = refuse_bad_line,
) -> Iterator[tuple[str, Document]]:
    """The documents of all sources with their groups, in order.

    Args:
        sources: what to read.
        by: the field of JSON lines whose value names the group of a document.
        field: name of the field with the text.
        on_bad_line: see ``iter_documents``.
    Raises:
        CorpusError: a path that cannot be read; from ``on_bad_line``.
    """
    labels = group_labels(by)
    for source in sources:
        for file in find_sources(source.path):
            for document in iter_documents(file, field=field, on_bad_line=on_bad_line, labels=labels):
                key, *group = document.labels
                if source.takes(key or document.text):
                    yield source.group_of(file, group[0] if group else None), document


def group_labels(by: str | None) -> tuple[str, ...]:
    """The fields that say on which side a document is and, with ``by``, which group it belongs to, in this order."""
    return (_ID_FIELD, *([by] if by else []))
