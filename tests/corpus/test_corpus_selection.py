"""Filters, duplicates and the split of a corpus, against a few lines of plain Python."""

import hashlib
import math
import random
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import documents_in, json_line, stored_stream, write_lines, write_source

from bytelm.corpus import Corpus, Manifest, build_corpus, duplicates, in_valid
from bytelm.corpus.duplicates import DigestRuns, find_repeats
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError

UTF8 = get_encoding("utf8")


def documents_of(folder: Path) -> list[str]:
    corpus = Corpus.open(folder)
    return documents_in(corpus.encoding, corpus.read(0, corpus.num_bytes).tobytes())


def chosen(documents, least, most, deduplicate):
    """What is taken, and why others are not, in the order of documents."""
    seen, taken, why = set(), [], Counter()
    for text in documents:
        if least is not None and len(text) < least:
            why["too_short"] += 1
        elif most is not None and len(text) > most:
            why["too_long"] += 1
        elif deduplicate and text in seen:
            why["duplicates"] += 1
        else:
            seen.add(text)
            taken.append(text)
    return taken, why


some_texts = st.lists(st.sampled_from(["", "一", "二二", "三三三", "四四四四", "a", "ab"]), min_size=1, max_size=12)


@given(
    files=st.lists(some_texts, min_size=1, max_size=4),
    least=st.none() | st.integers(0, 3),
    width=st.none() | st.integers(0, 3),
    deduplicate=st.booleans(),
    share=st.sampled_from([0.0, 0.5]),
    shard_bytes=st.sampled_from([10, 10_000]),
    run=st.integers(1, 5),
    bucket=st.integers(1, 4),
)
def test_documents_that_are_taken(files, least, width, deduplicate, share, shard_bytes, run, bucket):
    most = None if width is None else max(1, (least or 0) + width)
    documents = [text for texts in files for text in texts]
    taken, why = chosen(documents, least, most, deduplicate)
    sides = {"train": [t for t in taken if not in_valid(t, share)], "valid": [t for t in taken if in_valid(t, share)]}
    if share == 0:
        sides = {"": taken}
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_RUN_DIGESTS", run)
        patch.setattr(duplicates, "_BUCKET_DIGESTS", bucket)
        paths = [
            write_lines(Path(name) / f"{i}.jsonl", [json_line(text) for text in texts]) for i, texts in enumerate(files)
        ]
        options = {"min_characters": least, "max_characters": most, "deduplicate": deduplicate, "valid_share": share}
        out = Path(name) / "out"
        if not all(sides.values()):
            with pytest.raises(CorpusError, match="found no document"):
                build_corpus(paths, UTF8, out, shard_bytes=shard_bytes, **options)
            assert not out.exists()
            return
        build_corpus(paths, UTF8, out, shard_bytes=shard_bytes, **options)
        manifests = [Manifest.load(out / side) for side in sides]
        for side, expected in sides.items():
            corpus = Corpus.open(out / side)
            assert corpus.read(0, corpus.num_bytes).tobytes() == stored_stream(UTF8, expected)
    assert sum((Counter(manifest.left_out()) for manifest in manifests), Counter()) == why
    assert [source.path for source in manifests[0].sources] == [str(path) for path in paths]


def test_the_number_of_workers_does_not_show(tmp_path):
    rng = random.Random(5)
    (tmp_path / "in").mkdir()
    for number in range(7):
        write_source(tmp_path / "in" / f"{number}.jsonl.gz", [f"{rng.randrange(300)}番" for _ in range(200)])
    found = []
    for workers in (0, 1, 3):
        out = tmp_path / f"out{workers}"
        options = {"deduplicate": True, "valid_share": 0.2, "min_characters": 3}
        build_corpus(tmp_path / "in", get_encoding("dense-ja"), out, workers=workers, shard_bytes=150, **options)
        found.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert len(found[0]) > 10
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("split_blank_lines", [False, True])
def test_plain_text_is_chosen_by_whole_documents(tmp_path, monkeypatch, split_blank_lines):
    """Also where a document is longer than the blocks in which it is read."""
    monkeypatch.setattr("bytelm.corpus.readers._BLOCK_BYTES", 16)
    long, short = "長い文書の一行。\n" * 10, "短い。\n"
    path = write_source(tmp_path / "x.txt", [f"{short}\n{long}\n{short}\n" if split_blank_lines else long])
    other = write_source(tmp_path / "y.txt", [short])
    again = write_source(tmp_path / "z.txt", [short])
    build_corpus([path, other, again], UTF8, tmp_path / "out", max_characters=20, deduplicate=True,
                 split_blank_lines=split_blank_lines)  # fmt: skip
    manifest = Manifest.load(tmp_path / "out")
    assert documents_of(tmp_path / "out") == [short.removesuffix("\n") if split_blank_lines else short]
    assert manifest.left_out() == {"too_short": 0, "too_long": 1, "duplicates": 3 if split_blank_lines else 1}


def test_bad_lines_do_not_shift_what_repeats(tmp_path):
    lines = [json_line("一"), b"{", json_line("二"), b"\xff", json_line("一"), json_line("三"), json_line("三")]
    path = write_lines(tmp_path / "x.jsonl", lines)
    manifest = build_corpus(path, UTF8, tmp_path / "out", deduplicate=True, skip_bad_lines=True)
    assert documents_of(tmp_path / "out") == ["一", "二", "三"]
    assert (manifest.num_bad_lines, manifest.left_out()["duplicates"]) == (2, 2)
    assert len(manifest.bad_lines) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_characters": -1}, "min_characters: found -1, expected 0 or more"),
        ({"min_characters": 5, "max_characters": 4}, "max_characters: found 4, expected 5 or more"),
        ({"max_characters": 0}, "max_characters: found 0, expected 1 or more"),
        ({"valid_share": 1.0}, "valid_share: found 1.0, expected a share from 0 to below 1"),
        ({"valid_share": float("nan")}, "valid_share: found nan"),
        ({"valid_share": 1e-9}, "found no document for the corpus 'valid', expected at least one"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    with pytest.raises(CorpusError, match=message):
        build_corpus(write_source(tmp_path / "x.txt", ["一"]), UTF8, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# Duplicates, with memory that is bounded


def repeats_by_a_set(parts: list[list[tuple[int, bytes]]]) -> list[set[int]]:
    seen, found = set(), []
    for part in parts:
        found.append(set())
        for number, digest in part:
            if digest in seen:
                found[-1].add(number)
            seen.add(digest)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_repeats_are_those_of_a_set(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(duplicates, "_RUN_DIGESTS", 100)
    monkeypatch.setattr(duplicates, "_BUCKET_DIGESTS", 64)
    rng = random.Random(seed)
    pool = [rng.randbytes(16) for _ in range(700)] + [bytes(16), b"\xff" * 16, bytes(15) + b"\x01"]
    parts, files = [], []
    for index in range(5):
        numbers = sorted(rng.sample(range(1000), 600)) if index != 3 else []
        parts.append([(number, rng.choice(pool)) for number in numbers])
        path = tmp_path / f"{index}"
        with path.open("wb") as file:
            runs = DigestRuns(file)
            for number, digest in parts[-1]:
                runs.add(number, digest)
            runs.flush()
        files.append((path, 1000))
    found = [set(np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist()) for bits in find_repeats(files)]
    assert found == repeats_by_a_set(parts)
    assert sum(map(len, found)) > 1000


def test_what_is_sorted_at_a_time_is_bounded(tmp_path, monkeypatch):
    """Also where most documents are the same one: a run has it once."""
    monkeypatch.setattr(duplicates, "_RUN_DIGESTS", 256)
    monkeypatch.setattr(duplicates, "_BUCKET_DIGESTS", 128)
    sizes = []
    really = duplicates._mark
    monkeypatch.setattr(
        duplicates, "_mark", lambda slices, bits: (sizes.append(sum(b - a for _, a, b in slices)), really(slices, bits))
    )
    rng = random.Random(0)
    with (tmp_path / "x").open("wb") as file:
        runs = DigestRuns(file)
        for number in range(20_000):
            runs.add(number, bytes(16) if number % 10 else rng.randbytes(16))
        runs.flush()
    (bits,) = find_repeats([(tmp_path / "x", 20_000)])
    assert int(np.unpackbits(bits).sum()) == 18_000 - 1
    assert max(sizes) < 128 * 1.5 + 20_000 / 256


# The split

SIDES = [6, 10, 19, 24, 31, 40, 47, 59]
"""Of 60 documents those that go to validation with a share of a tenth; it must never change."""


def test_sides_are_fixed_for_ever():
    digest = hashlib.blake2b("春".encode(), digest_size=24).digest()
    share = int.from_bytes(digest[16:], "big") / 2**64
    assert in_valid("春", share + 1e-9)
    assert not in_valid("春", share - 1e-9)
    assert [i for i in range(60) if in_valid(f"doc-{i}", 0.1)] == SIDES


def test_a_document_keeps_its_side_whatever_is_built(tmp_path):
    texts = [f"文書{i}" for i in range(400)]
    files = {}
    for name, order in (("a", texts), ("b", texts[::-1]), ("c", texts[100:] + ["ほか"] * 3 + texts[:100])):
        (tmp_path / name).mkdir()
        halves = (order[:150], order[150:]) if name != "b" else (order,)
        for i, half in enumerate(halves):
            write_source(tmp_path / name / f"{i}.jsonl", half)
        build_corpus(tmp_path / name, UTF8, tmp_path / f"out{name}", valid_share=0.1)
        files[name] = {side: documents_of(tmp_path / f"out{name}" / side) for side in ("train", "valid")}
    for found in files.values():
        assert set(found["valid"]) == {text for side in found.values() for text in side if in_valid(text, 0.1)}
        assert not set(found["train"]) & set(found["valid"])
    assert sorted(files["a"]["valid"]) == sorted(files["b"]["valid"])
    assert set(files["a"]["valid"]) <= set(files["c"]["valid"])
    larger = {text for text in texts if in_valid(text, 0.2)}
    assert set(files["a"]["valid"]) < larger


NUM_DRAWS = 20_000


def is_share(draws: list[bool], share: float) -> bool:
    """Two-sided test of a binomial at an error rate of 1e-4 (normal approximation; 3.891 is its quantile)."""
    deviation = math.sqrt(len(draws) * share * (1 - share))
    return abs(sum(draws) - len(draws) * share) < 3.891 * deviation


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_met(share):
    draws = [in_valid(f"これは{i}番目の文書。", share) for i in range(NUM_DRAWS)]
    assert is_share(draws, share)
    # neighbours are independent: both are taken with the square of the share
    assert is_share([a and b for a, b in zip(draws[::2], draws[1::2], strict=True)], share**2)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_test_of_shares_sees_what_is_wrong(share):
    """Negative controls: a fifth more than asked for, and a split by position that is no function of the document."""
    assert not is_share([in_valid(f"これは{i}番目の文書。", share * 1.2) for i in range(NUM_DRAWS)], share)
    by_position = [i % round(1 / share) == 0 for i in range(NUM_DRAWS)]
    assert is_share(by_position, share)
    assert not is_share([a and b for a, b in zip(by_position[::2], by_position[1::2], strict=True)], share**2)
