"""From source files to a corpus: parts of the input, in worker processes, into shards and the manifest."""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from bytelm.config import Config
from bytelm.corpus.digests import digest_part
from bytelm.corpus.duplicates import find_repeats
from bytelm.corpus.files import find_sources
from bytelm.corpus.finish import FINISHED_FILE, FINISHING_FILE, finish, target_folders
from bytelm.corpus.manifest import Manifest
from bytelm.corpus.options import BuildOptions
from bytelm.corpus.part import build_part
from bytelm.corpus.plan import PLAN_FILE, Part, Plan
from bytelm.corpus.records import (
    DigestSummary,
    Job,
    PartDone,
    PartProgress,
    PartSummary,
    remove_files,
    remove_unfinished,
    told,
)
from bytelm.corpus.shards import corpus_files
from bytelm.corpus.team import BuildLock, Team
from bytelm.encoding import Encoding
from bytelm.errors import ConfigError, CorpusError

log = logging.getLogger(__name__)

UNFINISHED = "unfinished"
"""Folder, below that of the corpus, in which a build works; it goes when the corpus is complete."""

_SummaryT = TypeVar("_SummaryT", bound=Config)


@final
@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build has come. ``source_bytes`` of ``total_source_bytes`` (sizes on disk) were read; ``documents``,
    ``characters`` and ``bytes`` (of the stored stream) were written.

    With ``deduplicate`` the stage ``comparing`` comes first, in which documents are read and nothing is written.
    ``kept_parts`` of an earlier build were verified.
    """

    source: str
    source_bytes: int
    total_source_bytes: int
    documents: int
    characters: int
    bytes: int
    bad_lines: int
    stage: Literal["comparing", "encoding"] = "encoding"
    kept_parts: int = 0


def build_corpus(
    paths: str | Path | Sequence[str | Path],
    encoding: Encoding,
    out: str | Path,
    *,
    workers: int = 0,
    overwrite: bool = False,
    progress: Callable[[BuildProgress], None] | None = None,
    **options: Any,
) -> Manifest:
    """Encode documents into the shards and the manifest of a corpus.

    The stored stream is, for every document in order, the BOS patch of 4 bytes, the encoded text and EOS. A document
    of no characters is stored as BOS patch and EOS. Memory stays flat whatever the size of the input: a line of JSON
    or row of Parquet is held whole, with one of the options that choose documents any document that is not too long;
    without duplicates up to 200 MB to sort digests, and a bit for each document.

    Files are read in parts: a large file alone, small ones together up to ``shard_bytes``. Each part is written into
    shards of its own below ``out/unfinished``. What is finished there is kept when the build ends early, for whatever
    cause, and the same call goes on with it, once it has compared its SHA-256. The output depends neither on
    ``workers`` nor on how often the build was begun.

    Args:
        paths: files, folders, URLs and data sets, see :func:`~bytelm.corpus.files.find_sources`.
        encoding: encodes the text; its table and digest are stored in the manifest.
        out: folder of the corpus; made if need be.
        workers: processes that read and encode; 0 does so in this process. They are spawned, so a script that asks
            for them needs ``if __name__ == "__main__":``.
        overwrite: replace a corpus that ``out`` holds, when the new one is complete, and an unfinished build of
            something else at once.
        progress: called after every few hundred thousand characters.
        options: fields of :class:`~bytelm.corpus.options.BuildOptions`, by name. With ``valid_share`` two corpora are
            written, ``out/train`` and ``out/valid``.
    Returns:
        the manifest of the corpus; with ``valid_share`` that of ``out/train``.
    Raises:
        CorpusError: a source that cannot be read, a bad line, no document at all, a folder that already holds a corpus
            or an unfinished build of something else, or that cannot be written. Finished parts stay.
    """
    if workers < 0:
        raise CorpusError(f"workers: found {workers}, expected 0 or more")
    try:
        chosen = BuildOptions(**options)
    except ConfigError as error:
        raise CorpusError(str(error)) from None
    out = Path(out)
    _check_folder(out, chosen, overwrite)
    plan = Plan(encoding_digest=encoding.digest, options=chosen, sources=tuple(find_sources(paths)))
    job = Job(out / UNFINISHED, encoding, chosen)
    team = Team(min(workers, sum(1 for _ in plan.parts())), job, job.folder)
    with team, _opened(job.folder, plan, overwrite, team):
        if not _is_encoded(job.folder):
            tally = _Tally(plan, progress)
            repeated = _repeats(team, job, plan, tally) if chosen.deduplicate else None
            summaries = tally.finished("encoding", team.run(build_part, _tasks(plan, repeated)), PartSummary)
            _check_documents(job, plan, summaries)
        return finish(job, plan, out)


def _repeats(team: Team, job: Job, plan: Plan, tally: "_Tally") -> list[NDArray[np.uint8]]:
    found = tally.finished("comparing", team.run(digest_part, plan.parts()), DigestSummary)
    return find_repeats([(job.folder / summary.file.file, summary.documents) for summary in found])


def _tasks(plan: Plan, repeated: Sequence[NDArray[np.uint8]] | None) -> Iterator[tuple[Part, NDArray[np.uint8] | None]]:
    for part in plan.parts():
        yield part, None if repeated is None else repeated[part.index]


def _is_encoded(folder: Path) -> bool:
    """Whether all parts of an unfinished build are done, and it was about to make corpora of them, or to go."""
    return any((folder / name).exists() for name in (FINISHING_FILE, FINISHED_FILE))


def _check_folder(out: Path, options: BuildOptions, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise CorpusError(f"{out}: found a file, expected a folder")
    if overwrite or _is_encoded(out / UNFINISHED):
        return
    for folder in (out, *target_folders(out, options)):
        if found := corpus_files(folder):
            raise CorpusError(f"{folder}: found {found[0].name} of an earlier build, expected a folder without one")


@contextlib.contextmanager
def _opened(folder: Path, plan: Plan, overwrite: bool, team: Team) -> Iterator[None]:
    """The folder of the unfinished build, for this process and its team alone. Only finished parts stay in it, and it
    goes where there is none.
    """
    made = not folder.parent.exists()
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = BuildLock(folder, alone=True)
    try:
        _take_over(folder, plan, overwrite)
        yield
    except BaseException:
        team.stop()
        raise
    finally:
        remove_unfinished(folder)
        lock.release()
        if (folder / FINISHED_FILE).exists() or not any(folder.glob("part-*.json")):
            with told(folder):
                for path in sorted(folder.glob("*"), key=lambda path: path.name == FINISHED_FILE):
                    path.unlink(missing_ok=True)  # that file last, so that the next call knows what is left
            with contextlib.suppress(OSError):
                folder.rmdir()
                if made:
                    folder.parent.rmdir()


def _take_over(folder: Path, plan: Plan, overwrite: bool) -> None:
    """Go on with the unfinished build that the folder holds, or begin one."""
    finished = folder / FINISHED_FILE
    if finished.exists() or any(folder.glob("part-*.json")):
        try:
            Plan.load(finished if finished.exists() else folder / PLAN_FILE).check_same(plan, folder.parent)
        except CorpusError:
            if not overwrite:
                raise
        else:
            return
    with told(folder / PLAN_FILE):
        for path in folder.glob("*"):
            if path.name != "lock":
                path.unlink()
        plan.save(folder)


def _check_documents(job: Job, plan: Plan, summaries: Sequence[PartSummary]) -> None:
    """Refuse a corpus without a document; its parts need not be kept."""
    for index, side in enumerate(plan.options.sides):
        found = [summary.sides[index] for summary in summaries]
        if any(summary.documents for summary in found):
            continue
        others = f" and {len(plan.sources) - 1} more files" if len(plan.sources) > 1 else ""
        bad = sum(source.bad_lines for summary in found for source in summary.sources)
        skipped = f" ({bad} bad lines were skipped)" if bad else ""
        remove_files(job.folder, "part-*")
        whose = "" if side == "all" else f" for the corpus {side!r}"
        raise CorpusError(f"{plan.sources[0]}{others}{skipped}: found no document{whose}, expected at least one")


@final
class _Tally:
    """Adds up what the parts report."""

    def __init__(self, plan: Plan, progress: Callable[[BuildProgress], None] | None) -> None:
        self._parts = list(plan.parts())
        self._total_bytes = sum(part.num_bytes for part in self._parts)
        self._progress = progress

    def finished(
        self,
        stage: Literal["comparing", "encoding"],
        messages: Generator[PartProgress | PartDone, None, None],
        kind: type[_SummaryT],
    ) -> list[_SummaryT]:
        """The summaries of all parts, in their order, when all are done."""
        summaries: dict[int, _SummaryT] = {}
        latest: dict[int, PartProgress] = {}
        total = dict.fromkeys(("source_bytes", "documents", "characters", "bytes", "bad_lines"), 0)
        kept = 0
        with contextlib.closing(messages):  # at once: what is removed on failure must not go later
            for message in messages:
                if isinstance(message, PartDone):
                    assert isinstance(message.summary, kind)
                    summaries[message.part] = message.summary
                    kept += message.kept
                    if message.altered:
                        log.warning("%s; the part is built again", message.altered)
                    if not message.kept:
                        continue
                    message = self._of_kept(message)
                before = latest.get(message.part)
                for name in total:
                    total[name] += getattr(message, name) - (getattr(before, name) if before else 0)
                latest[message.part] = message
                if self._progress is not None:
                    state = BuildProgress(
                        message.source, total_source_bytes=self._total_bytes, stage=stage, kept_parts=kept, **total
                    )
                    self._progress(state)
        return [summaries[index] for index in range(len(self._parts))]

    def _of_kept(self, done: PartDone) -> PartProgress:
        part, summary = self._parts[done.part], done.summary
        sides = summary.sides if isinstance(summary, PartSummary) else ()
        return PartProgress(
            part=part.index,
            source=part.sources[-1].name,
            source_bytes=part.num_bytes,
            documents=sum(side.documents for side in sides),
            characters=sum(side.characters for side in sides),
            bytes=sum(shard.bytes for side in sides for shard in side.shards),
            bad_lines=sum(source.bad_lines for side in sides for source in side.sources),
        )
