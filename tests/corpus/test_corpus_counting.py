"""Counting by group against a counter over the documents."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bytelm.corpus import CountProgress, GroupSource, count_groups, counting, iter_groups, weigh
from bytelm.encoding import count_pairs
from bytelm.encoding.counting import GROUP_WEIGHT
from bytelm.errors import CorpusError

letters = st.text(st.sampled_from("abか🐟\n"), max_size=12)


def write(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def compare(found, sources, by):
    texts: dict[str, list[str]] = {}
    for name, document in iter_groups(sources, by=by):
        texts.setdefault(name, []).append(document.text)
    assert [group.name for group in found] == list(texts)
    for group, expected in zip(found, texts.values(), strict=True):
        joined = "".join(expected)
        assert (group.documents, group.characters) == (len(expected), len(joined))
        assert {chr(p): int(group.counts[p]) for p in np.flatnonzero(group.counts)} == Counter(joined)
        slow = count_pairs(expected)
        assert group.pairs.keys.tolist() == slow.keys.tolist()
        assert group.pairs.counts.tolist() == slow.counts.tolist()


@given(
    st.lists(st.tuples(letters, st.sampled_from("xyz")), min_size=1),
    st.integers(1, 30),
    st.sampled_from(["all", "train"]),
)
def test_counts_and_pairs_of_each_group(tmp_path_factory, documents, batch, side):
    path = tmp_path_factory.mktemp("groups") / "all.jsonl"
    write(path, ({"text": t, "g": g, "id": str(i)} for i, (t, g) in enumerate(documents)))
    sources = [GroupSource(path, side=side)]
    assume(list(iter_groups(sources, by="g")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_BATCH_CHARACTERS", batch)
        found = count_groups(sources, by="g", pairs=True)
    compare(found, sources, "g")


@pytest.mark.parametrize("workers", [0, 1])
def test_plain_text_of_many_blocks(tmp_path, monkeypatch, workers):
    """A document that comes in many pieces and batches has all its pairs, and only its own."""
    monkeypatch.setattr("bytelm.corpus.readers._BLOCK_BYTES", 50)
    monkeypatch.setattr(counting, "_BATCH_CHARACTERS", 40)
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    for path in paths:
        path.write_text("雨が降る。\nrain\n" * 30 + path.name, encoding="utf-8")
    sources = [GroupSource(path, "one") for path in paths]
    compare(count_groups(sources, pairs=True, workers=workers), sources, None)
    for side in ("train", "test"):  # without an id the text decides, so the whole of it is needed
        names = [GroupSource(path, side=side) for path in paths]
        if list(iter_groups(names)):
            compare(count_groups(names, pairs=True, workers=workers), names, None)
        else:
            with pytest.raises(CorpusError, match="no document"):
                count_groups(names)


def test_progress_ends_at_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_BATCH_CHARACTERS", 10)
    path = write(tmp_path / "x.jsonl", ({"text": "ab" * 10} for _ in range(9)))
    states: list[CountProgress] = []
    count_groups([GroupSource(path)], progress=states.append)
    size = path.stat().st_size
    assert [s.source_bytes for s in states] == sorted(s.source_bytes for s in states)
    assert states[-1] == CountProgress(size, size, 9, 180)


def test_weights(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"text": "aab", "g": "x"}, {"text": "b" * 9, "g": "y"}, {"text": "", "g": "z"}])
    groups = count_groups([GroupSource(path)], by="g", pairs=True)
    counts, pairs = weigh(groups, equal=False)
    assert (counts[ord("a")], counts[ord("b")], pairs.counts.sum()) == (2, 10, 10)
    counts, pairs = weigh(groups, equal=True)
    assert (counts[ord("a")], counts[ord("b")]) == (2 * GROUP_WEIGHT // 3, GROUP_WEIGHT // 3 + GROUP_WEIGHT)
    assert pairs.counts.sum() == 2 * (GROUP_WEIGHT // 3) + 8 * GROUP_WEIGHT // 9
    assert weigh(count_groups([GroupSource(path)]), equal=True)[1] is None


def test_refusals(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"text": "ab"}])
    with pytest.raises(CorpusError, match="workers: found -1"):
        count_groups([GroupSource(path)], workers=-1)
    path.write_text("no json\n")
    with pytest.raises(CorpusError, match=r"x\.jsonl:1: found no JSON"):
        count_groups([GroupSource(path)])
    bad = []
    with pytest.raises(CorpusError, match=r"x\.jsonl: found no document"):
        count_groups([GroupSource(path)], on_bad_line=bad.append)
    assert len(bad) == 1
