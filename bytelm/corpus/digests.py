"""The first of two passes of a build without duplicates: the digests of all documents."""

from collections.abc import Iterator

from bytelm.corpus.duplicates import DigestRuns
from bytelm.corpus.manifest import BadLine, save_json
from bytelm.corpus.plan import Part
from bytelm.corpus.readers import Source, refuse_bad_line
from bytelm.corpus.records import (
    DigestSummary,
    Job,
    PartDone,
    PartProgress,
    load_kept,
    removed_on_failure,
    told,
)
from bytelm.corpus.selection import Judged, judge
from bytelm.corpus.shards import describe_file

_MESSAGE_DOCUMENTS = 1000


def digest_part(job: Job, part: Part) -> Iterator[PartProgress | PartDone]:
    """Write the digests of a part's documents, but of those that are too short or too long."""
    record = job.folder / f"{part.name}.digests.json"
    kept, altered = load_kept(record, DigestSummary)
    if kept is not None:
        yield PartDone(part.index, kept, kept=True)
        return
    path = job.folder / f"{part.name}.digests"
    number = 0
    with removed_on_failure(job.folder, f"{part.name}.digests*"), told(path):
        with path.open("wb") as file:
            runs = DigestRuns(file)
            for number, (name, position, judged) in enumerate(_documents(job, part), 1):
                if judged.verdict == "taken":
                    runs.add(number - 1, judged.digest)
                if number % _MESSAGE_DOCUMENTS == 0:
                    yield PartProgress(part.index, name, position, number)
            runs.flush()
        summary = DigestSummary(documents=number, file=describe_file(path))
        save_json(record, summary)
    yield PartProgress(part.index, part.sources[-1].name, part.num_bytes, number)
    yield PartDone(part.index, summary, kept=False, altered=altered)


def _documents(job: Job, part: Part) -> Iterator[tuple[str, int, Judged]]:
    """Each document, with the file it is from and the bytes of the part that were read."""
    before = 0
    for file in part.sources:
        source = Source(
            file,
            field=job.options.field,
            split_blank_lines=job.options.split_blank_lines,
            on_bad_line=_pass_over if job.options.skip_bad_lines else refuse_bad_line,
        )
        for judged in judge(source, job.options):
            yield file.name, before + source.position, judged
        before += source.num_bytes


def _pass_over(bad: BadLine) -> None:
    """The pass that writes counts and lists it."""
