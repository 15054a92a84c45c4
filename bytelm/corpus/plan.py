"""The plan of a build: what is read, in which parts, with which options. It decides every byte that is written."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from bytelm.config import Config
from bytelm.corpus.files import SourceFile
from bytelm.corpus.manifest import save_json
from bytelm.corpus.options import BuildOptions
from bytelm.errors import ConfigError, CorpusError

PLAN_FILE = "plan.json"
_FORMAT_VERSION = 1
_AGAIN = "the same command as before goes on with it, `overwrite` starts anew"


@final
@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive sources that one process reads and writes into shards of their own."""

    index: int
    sources: tuple[SourceFile, ...]

    @property
    def name(self) -> str:
        """How the names of its files begin."""
        return f"part-{self.index:05d}"

    @property
    def num_bytes(self) -> int:
        """Size of its sources, as far as it is known."""
        return sum(source.num_bytes for source in self.sources)


@final
@dataclass(frozen=True, kw_only=True)
class Plan(Config):
    """Sources, encoding (by digest) and options of a build; ``plan.json`` of an unfinished one."""

    format_version: int = _FORMAT_VERSION
    encoding_digest: str
    options: BuildOptions
    sources: tuple[SourceFile, ...]

    def parts(self) -> Iterator[Part]:
        """The parts: a file larger than a shard alone, and so a shard of a data set; smaller ones together up to that
        size.
        """
        index, held, size = 0, list[SourceFile](), 0
        for source in self.sources:
            if held and (source.bytes is None or size + source.bytes > self.options.shard_bytes):
                yield Part(index, tuple(held))
                index, held, size = index + 1, [], 0
            held.append(source)
            size += self.options.shard_bytes if source.bytes is None else source.bytes
        yield Part(index, tuple(held))

    def save(self, folder: Path) -> None:
        """Write ``plan.json``, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        save_json(folder / PLAN_FILE, self)

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan from its file.

        Raises:
            CorpusError: it is damaged, or of another version.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            plan = cls.from_dict(data)
        except (OSError, ValueError, ConfigError) as error:
            raise CorpusError(f"{path}: found no plan of a build ({error}), `overwrite` starts anew") from None
        if plan.format_version != _FORMAT_VERSION:
            raise CorpusError(f"{path}: found format_version {plan.format_version}, expected {_FORMAT_VERSION}")
        return plan

    def check_same(self, asked: "Plan", folder: Path) -> None:
        """Refuse to go on with this plan, of an unfinished build in ``folder``, where another one was asked for.

        Raises:
            CorpusError: names the first difference.
        """
        before, now = self.options.to_dict(), asked.options.to_dict()
        before["encoding"], now["encoding"] = self.encoding_digest[:12], asked.encoding_digest[:12]
        for name, value in before.items():
            if value != now[name]:
                found = f"found an unfinished build with {name} = {value!r}"
                raise CorpusError(f"{folder}: {found}, expected {now[name]!r}: {_AGAIN}")
        if self.sources != asked.sources:
            raise CorpusError(f"{folder}: found an unfinished build of other sources ({self._change(asked)}): {_AGAIN}")

    def _change(self, asked: "Plan") -> str:
        old, new = ({source.name: source for source in plan.sources} for plan in (self, asked))
        for name in old:
            if name not in new:
                return f"{name} is no longer there"
            if old[name] != new[name]:
                return f"{name} has changed"
        return next((f"{name} is new" for name in new if name not in old), "another order")
