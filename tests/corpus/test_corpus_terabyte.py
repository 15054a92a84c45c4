"""A corpus of a terabyte, of sparse files: opened and sampled in seconds, in memory that does not grow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bytelm.corpus import Manifest, Shard, SourceSummary
from bytelm.corpus.manifest import FORMAT_VERSION
from bytelm.encoding import get_encoding

TERABYTE = 10**12
SHARD_BYTES = 1 << 28  # as a build writes them
NUM_FILES = 1500


def write_sparse_corpus(folder: Path) -> None:
    """Shards without content and the manifest of a build of so many files."""
    folder.mkdir()
    encoding = get_encoding("dense-ja")
    sizes = [min(SHARD_BYTES, TERABYTE - begin) for begin in range(0, TERABYTE, SHARD_BYTES)]
    shards = []
    for number, size in enumerate(sizes):
        path = folder / f"shard-{number:05d}.bin"
        with path.open("wb") as file:
            try:
                file.truncate(size)
            except OSError as error:
                pytest.skip(f"{folder}: {error.strerror}: no sparse files here")
        shards.append(Shard(file=path.name, bytes=size, sha256=f"{number:064x}"))
    if os.stat(folder / "shard-00000.bin").st_blocks * 512 > SHARD_BYTES // 2:
        pytest.skip(f"{folder}: the file system has no sparse files")
    documents = NUM_FILES * 200_000
    Manifest(
        format_version=FORMAT_VERSION,
        encoding=encoding.name,
        encoding_digest=encoding.digest,
        encoding_table=encoding.to_dict(),
        documents=documents,
        characters=8 * TERABYTE // 10,
        utf8_bytes=2 * TERABYTE,
        bytes=TERABYTE,
        shards=tuple(shards),
        sources=tuple(
            SourceSummary(path=f"s3://bucket/text/{i:05d}.jsonl.gz", documents=200_000, bad_lines=0)
            for i in range(NUM_FILES)
        ),
    ).save(folder)


SAMPLE = """
import json, sys, time
from pathlib import Path
import torch
from bytelm.training import CorpusData, WeightedCorpus

def peak():
    return next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))

folder, found = Path(sys.argv[1]), []
for train in (folder, [WeightedCorpus(folder, 0.7), WeightedCorpus(folder, 0.3)]):
    imported, began = peak(), time.monotonic()
    data = CorpusData(train, folder, window=11_520, batch_size=8)
    data.digest("train")
    batches = iter(data.train_dataloader())
    next(batches)
    next(iter(data.val_dataloader()))
    start_s, opened = time.monotonic() - began, peak()
    for _ in range(300):
        next(batches)
    found.append({"start_s": start_s, "opened": opened - imported, "sampled": peak() - opened})
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_a_terabyte_is_sampled(tmp_path):
    """By itself and in a mixture."""
    write_sparse_corpus(tmp_path / "corpus")
    command = [sys.executable, "-c", SAMPLE, tmp_path / "corpus"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert found["start_s"] < 10
        assert found["opened"] < 200 * 1024  # in KiB: manifests, and the tables of the encoding of each corpus
        assert found["sampled"] < 8 * 1024  # 300 batches are 28 MB, from as many places of the corpus
