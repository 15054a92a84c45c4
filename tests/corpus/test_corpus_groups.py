"""Documents by group, and the split by id."""

from pathlib import Path

import pytest
from source_files import write_lines

from bytelm.corpus import Document, GroupSource, in_test, iter_documents, iter_groups
from bytelm.errors import CorpusError


def test_labels_go_with_their_documents(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [b'{"text": "a", "id": 7, "lang": "xx"}', b'{"text": "b", "lang": null}'])
    assert list(iter_documents(path, labels=("lang", "id"))) == [
        Document("a", 1, ("xx", "7")),
        Document("b", 2, (None, None)),
    ]
    (tmp_path / "x.txt").write_text("c", encoding="utf-8")
    assert [d.labels for d in iter_documents(tmp_path / "x.txt", labels=("id",))] == [(None,)]
    assert [d.labels for d in iter_documents(tmp_path / "x.txt")] == [()]


def test_groups_are_named_by_the_source_the_field_or_the_file(tmp_path):
    path = write_lines(tmp_path / "some.small.jsonl", [b'{"text": "a", "lang": "xx"}', b'{"text": "b"}'])

    def groups(source, by):
        return [(group, document.text) for group, document in iter_groups([source], by=by)]

    assert groups(GroupSource(path), "lang") == [("xx", "a"), ("some", "b")]
    assert groups(GroupSource(path), None) == [("some", "a"), ("some", "b")]
    assert groups(GroupSource(path, "mine"), "lang") == [("mine", "a"), ("mine", "b")]


def test_the_sides_of_the_split_are_disjoint_and_whole(tmp_path):
    lines = [b'{"text": "t%d", "id": "doc-%d"}' % (i, i) for i in range(2000)]
    path = write_lines(tmp_path / "x.jsonl", lines)
    train, test = (
        {document.text for _, document in iter_groups([GroupSource(path, side=side)])} for side in ("train", "test")
    )
    assert train & test == set()
    assert len(train | test) == 2000
    assert 140 < len(test) < 260  # 200 expected, standard deviation 13
    assert test == {f"t{i}" for i in range(2000) if in_test(f"doc-{i}")}
    assert [i for i in range(50) if in_test(f"doc-{i}")] == [33, 40, 46]  # fixed for ever


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a/b.jsonl", GroupSource(Path("a/b.jsonl"))),
        ("ja=a/b.jsonl", GroupSource(Path("a/b.jsonl"), "ja")),
        ("a/b=c.jsonl", GroupSource(Path("a/b=c.jsonl"))),
        ("b.jsonl@test", GroupSource(Path("b.jsonl"), None, "test")),
        ("ja=b.jsonl@train", GroupSource(Path("b.jsonl"), "ja", "train")),
        ("b@home.jsonl", GroupSource(Path("b@home.jsonl"))),
    ],
)
def test_sources_as_they_are_typed(text, source):
    assert GroupSource.parse(text) == source


def test_a_source_without_a_path_is_refused():
    for text in ("", "ja=", "ja=@test"):
        with pytest.raises(CorpusError, match="found no path"):
            GroupSource.parse(text)
