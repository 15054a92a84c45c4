"""The end of a build: shards get their names, old files go, and the manifest makes the corpus complete."""

from pathlib import Path

from bytelm.corpus.manifest import FORMAT_VERSION, MANIFEST_FILE, Manifest, Shard
from bytelm.corpus.options import BuildOptions
from bytelm.corpus.part import MAX_LISTED_BAD_LINES
from bytelm.corpus.plan import PLAN_FILE, Plan
from bytelm.corpus.records import Job, PartSummary, load_record, told
from bytelm.corpus.shards import check_shards, corpus_files
from bytelm.errors import CorpusError

FINISHING_FILE = "finishing"
"""In the folder of an unfinished build: all parts are done, and their shards are being moved to where they belong."""
FINISHED_FILE = "finished.json"
"""The plan's name once the corpora are complete: what is left to do is to remove its folder."""


def target_folders(out: Path, options: BuildOptions) -> list[Path]:
    """The folders of the corpora that a build writes."""
    return [out if side == "all" else out / side for side in options.sides]


def finish(job: Job, plan: Plan, out: Path) -> Manifest:
    """Complete the corpora of which every part is done. It may be broken off anywhere, and done again; the files of the
    unfinished build stay.

    Returns:
        the manifest of the first.
    Raises:
        CorpusError: a file cannot be moved or written; after an earlier attempt, a shard was altered.
    """
    folders = target_folders(out, plan.options)
    if (job.folder / FINISHED_FILE).exists():
        return Manifest.load(folders[0])
    summaries = _summaries(job, plan)
    mark = job.folder / FINISHING_FILE
    moves = [_moves(job.folder, folder, summaries, side) for side, folder in enumerate(folders)]
    if mark.exists():
        check_shards([(old if old.exists() else new, shard) for found in moves for old, new, shard in found])
    with told(mark):
        mark.touch()
    manifests = []
    for side, (folder, found) in enumerate(zip(folders, moves, strict=True)):
        manifest = _manifest(job, plan, summaries, side, tuple(shard for *_, shard in found))
        _move(folder, found, manifest)
        manifests.append(manifest)
    with told(out):
        if out not in folders:  # two corpora take the place of one
            for path in corpus_files(out):
                path.unlink()
    with told(job.folder / FINISHED_FILE):
        (job.folder / PLAN_FILE).replace(job.folder / FINISHED_FILE)
    return manifests[0]


def _summaries(job: Job, plan: Plan) -> list[PartSummary]:
    summaries = []
    for part in plan.parts():
        path = job.folder / f"{part.name}.json"
        summary = load_record(path, PartSummary)
        if summary is None:
            raise CorpusError(f"{path}: found no record of a finished part, expected one; `overwrite` starts anew")
        summaries.append(summary)
    return summaries


def _moves(work: Path, folder: Path, summaries: list[PartSummary], side: int) -> list[tuple[Path, Path, Shard]]:
    """Where each shard of a corpus was written, where it belongs, and its entry in the manifest."""
    found: list[tuple[Path, Path, Shard]] = []
    for shard in (shard for summary in summaries for shard in summary.sides[side].shards):
        name = f"shard-{len(found):05d}.bin"
        found.append((work / shard.file, folder / name, Shard(file=name, bytes=shard.bytes, sha256=shard.sha256)))
    return found


def _move(folder: Path, moves: list[tuple[Path, Path, Shard]], manifest: Manifest) -> None:
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
        for old, new, _ in moves:
            if old.exists():
                old.replace(new)
        named = {new for _, new, _ in moves}
        for path in corpus_files(folder):
            if path not in named:
                path.unlink()
    with told(folder / MANIFEST_FILE):
        manifest.save(folder)


def _manifest(job: Job, plan: Plan, summaries: list[PartSummary], side: int, shards: tuple[Shard, ...]) -> Manifest:
    found = [summary.sides[side] for summary in summaries]
    return Manifest(
        format_version=FORMAT_VERSION,
        encoding=job.encoding.name,
        encoding_digest=job.encoding.digest,
        encoding_table=job.encoding.to_dict(),
        documents=sum(part.documents for part in found),
        characters=sum(part.characters for part in found),
        utf8_bytes=sum(part.utf8_bytes for part in found),
        bytes=sum(shard.bytes for shard in shards),
        shards=shards,
        sources=tuple(source for part in found for source in part.sources),
        bad_lines=tuple(bad for part in found for bad in part.bad_lines)[:MAX_LISTED_BAD_LINES],
        side=plan.options.sides[side],
        options=plan.options,
    )
