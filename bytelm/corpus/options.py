"""What a build is asked for, apart from its sources and its encoding."""

from dataclasses import dataclass
from typing import Literal, final

from bytelm.config import Config

Side = Literal["all", "train", "valid"]
"""A corpus among those that a build writes: the only one, or one of two."""


@final
@dataclass(frozen=True, kw_only=True)
class BuildOptions(Config):
    """Options of a build that decide what it writes; they stand in the manifest.

    Attributes:
        field: name of the JSON field, of the Parquet column or of the data set's column that holds the text.
        split_blank_lines: whether blank lines separate the documents of plain text files.
        skip_bad_lines: whether bad lines are counted and listed instead of ending the build.
        shard_bytes: size of every shard but the last of a part.
        min_characters: shorter documents are left out.
        max_characters: longer documents are left out.
        deduplicate: whether a document whose text equals that of an earlier one is left out, by a digest of 16 bytes;
            the sources are read twice.
        valid_share: share of the documents that form a corpus of their own for validation, 0 for none: a document goes
            there with this probability, by :func:`~bytelm.corpus.selection.in_valid`, of its text alone.
    """

    field: str = "text"
    split_blank_lines: bool = False
    skip_bad_lines: bool = False
    shard_bytes: int = 1 << 28
    min_characters: int | None = None
    max_characters: int | None = None
    deduplicate: bool = False
    valid_share: float = 0.0

    def validate(self) -> None:
        """Check the ranges."""
        self.require(self.shard_bytes >= 1, "shard_bytes", "1 or more")
        self.require(self.min_characters is None or self.min_characters >= 0, "min_characters", "0 or more")
        least = max(1, self.min_characters or 0)
        self.require(self.max_characters is None or self.max_characters >= least, "max_characters", f"{least} or more")
        self.require(0 <= self.valid_share < 1, "valid_share", "a share from 0 to below 1")

    @property
    def sides(self) -> tuple[Side, ...]:
        """The corpora that a build writes: all in one, or training and validation."""
        return ("train", "valid") if self.valid_share else ("all",)

    @property
    def judges(self) -> bool:
        """Whether a document must be known whole before it is known where it goes."""
        limits = self.min_characters is not None or self.max_characters is not None
        return limits or self.deduplicate or self.valid_share > 0
