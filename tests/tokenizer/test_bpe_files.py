"""The files of a BPE tokenizer: layouts, versions, and everything that can be wrong in them."""

import numpy as np
import pytest
from bpe_support import EOS, copy, read, split_files, write

from bytelm.errors import CheckpointError
from bytelm.tokenizer import BPETokenizer
from bytelm.tokenizer.byte_level import BYTE_CHARACTERS

# Layouts


def test_both_layouts_give_the_same_ids(toy, toy_folder, tmp_path):
    split = BPETokenizer.from_folder(split_files(toy_folder, tmp_path / "split"))
    assert split.vocabulary == toy.vocabulary
    text = f"The ferryman won't wait. 水の音 {EOS}"
    for allowed in ((), "all"):
        assert np.array_equal(split.encode(text, allowed_controls=allowed), toy.encode(text, allowed_controls=allowed))


def test_tokenizer_json_goes_first(toy, toy_folder, tmp_path):
    folder = copy(toy_folder, tmp_path / "both")
    (folder / "vocab.json").write_text("{}")
    assert BPETokenizer.from_folder(str(folder)).vocabulary == toy.vocabulary


def test_files_of_older_versions(toy, toy_folder, tmp_path):
    """Merges as strings, no type, no ``use_regex``; merges without a version line and with Windows' line ends."""
    folder = copy(toy_folder, tmp_path / "old")
    data = read(folder / "tokenizer.json")
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    del data["model"]["type"], data["pre_tokenizer"]["use_regex"]
    write(folder / "tokenizer.json", data)
    assert BPETokenizer.from_folder(folder).vocabulary == toy.vocabulary
    split = split_files(toy_folder, tmp_path / "split")
    lines = (split / "merges.txt").read_bytes().split(b"\n")[1:]
    (split / "merges.txt").write_bytes(b"\r\n".join(lines))
    assert BPETokenizer.from_folder(split).vocabulary == toy.vocabulary


def test_a_folder_that_transformers_wrote(toy_folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2Tokenizer(
        vocab=read(toy_folder / "tokenizer.json")["model"]["vocab"],
        merges=[tuple(pair) for pair in read(toy_folder / "tokenizer.json")["model"]["merges"]],
    )
    theirs.add_tokens(["<|extratoken_1|>"])
    theirs.save_pretrained(tmp_path)
    ours = BPETokenizer.from_folder(tmp_path)
    text = f"The ferryman won't wait.\n 水の音 🐟{EOS} 100<|extratoken_1|>"
    assert ours.encode(text, allowed_controls="all").tolist() == theirs.encode(text)
    assert ours.vocab_size == len(theirs)
    assert ours.decode(theirs.encode(text)) == text


# Damage


def text(name, change):
    """Put ``change`` of its bytes into a file."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def field(*keys_and_value):
    """Set a field of ``tokenizer.json``."""
    *keys, last, value = keys_and_value

    def change(folder):
        data = whole = read(folder / "tokenizer.json")
        for key in keys:
            data = data[key]
        data[last] = value
        write(folder / "tokenizer.json", whole)

    return change


def vocab(more, without=None):
    """Put tokens into ``vocab.json``, or take one out."""

    def change(folder):
        data = read(folder / "vocab.json")
        data.pop(without, None)
        write(folder / "vocab.json", data | more)

    return change


def third_merge(line):
    """Put a line into ``merges.txt``; None: one that is there."""

    def change(data):
        lines = data.split(b"\n")  # the version is the first
        return b"\n".join([*lines[:3], lines[1] if line is None else line, *lines[3:]])

    return text("merges.txt", change)


def prefixed(folder):
    write(folder / "tokenizer_config.json", {"add_prefix_space": True})


def adding(tokens):
    return lambda folder: write(folder / "added_tokens.json", tokens)


SPLIT = {
    "no vocabulary": (
        lambda folder: (folder / "vocab.json").unlink(),
        "toy: found neither tokenizer.json nor vocab.json",
    ),
    "no merges": (lambda folder: (folder / "merges.txt").unlink(), "merges.txt: no such file"),
    "a cut vocabulary": (text("vocab.json", lambda data: data[:-100]), "vocab.json: not readable as JSON: "),
    "no UTF-8": (text("vocab.json", lambda data: data + b"\xff"), "vocab.json: not readable as UTF-8: "),
    "deep nesting": (text("vocab.json", lambda data: b"[" * 99999), "vocab.json: not readable as JSON: "),
    "no object": (text("vocab.json", lambda data: b"[1]"), "vocab.json: found a list, expected a JSON object"),
    "a name twice": (text("vocab.json", lambda data: b'{"!": 1,' + data[1:]), "vocab.json: found the name '!' twice"),
    "no number": (vocab({"!": "1"}), r"vocab.json: token '!': found id '1'"),
    "a truth value": (vocab({"!": True}), "token '!': found id True"),
    "below zero": (vocab({"!": -1}), "token '!': found id -1"),
    "an empty token": (vocab({"": 340}), "vocab.json: found an empty token"),
    "a surrogate": (vocab({"\ud800": 340}), "found a lone surrogate"),
    "one id for two": (vocab({"!": 2}), "vocab.json: id 2 is that of '!' and of"),
    "a gap": (vocab({EOS: 9999}), "no token has id 0, but one has id 9999"),
    "a lost byte": (vocab({}, without=BYTE_CHARACTERS[0]), "byte 0x00 has no token, expected 'Ā'"),
    "an unmade token": (vocab({"zzz": 340}), "token 'zzz' .id 340. is made by no"),
    "no end of text": (vocab({"<|e|>": 0}, without=EOS), r"toy: controls: found <\|e"),
    "a cut line": (
        text("merges.txt", lambda data: data[:-4]),
        "merges.txt: merge |vocab.json: token .* is made by no merge",
    ),
    "a lost merge": (
        text("merges.txt", lambda data: b"\n".join(data.split(b"\n")[:-2])),
        "vocab.json: token '.*' .id 339. is made by no merge",
    ),
    "three parts": (third_merge(b"a b c"), r"merge 3: found \['a', 'b', 'c'\], expected two"),
    "an empty line": (third_merge(b""), "merges.txt: merge 3: found"),
    "two spaces": (third_merge(b" a"), "merges.txt: merge 3: found"),
    "an unknown token": (third_merge(b"a zz"), "merge 3 .a zz.: found the token 'zz', which has"),
    "an unknown join": (third_merge(b"q q"), "merge 3 .q q.: found the token 'qq', which has"),
    "a merge twice": (third_merge(None), "merge 3 .*: found a second time"),
    "a wrong id of an added token": (
        adding({EOS: 340}),
        "added_tokens.json: token '<.endoftext.>' has id 340, expected 0",
    ),
    "an added token on another": (adding({"<|x|>": 7}), "id 7 is that of .* and of '<.x.>'"),
    "a gap before an added token": (adding({"<|x|>": 341}), "no token has id 340, but"),
    "added tokens in a list": (adding(["<|x|>"]), "added_tokens.json: found a list"),
    "a space before the text": (prefixed, "tokenizer_config.json: add_prefix_space: found true"),
}


ONE = {
    "a cut file": (text("tokenizer.json", lambda data: data[:-100]), "tokenizer.json: not readable as JSON: "),
    "no model": (field("model", None), "tokenizer.json: model: found nothing, expected a JSON object"),
    "another model": (field("model", "type", "WordPiece"), "model.type: found 'WordPiece', expected 'BPE'"),
    "random merges": (field("model", "dropout", 0.1), "model.dropout: found 0.1, expected None"),
    "word ends": (field("model", "end_of_word_suffix", "</w>"), "model.end_of_word_suffix: found '</w>'"),
    "word insides": (field("model", "continuing_subword_prefix", "##"), "continuing_subword_prefix: found '##'"),
    "whole words": (field("model", "ignore_merges", True), "model.ignore_merges: found True, expected None"),
    "no cutter": (field("pre_tokenizer", None), "pre_tokenizer: found nothing"),
    "another cutter": (
        field("pre_tokenizer", "type", "Metaspace"),
        "pre_tokenizer.type: found 'Metaspace', expected 'By",
    ),
    "a space before the text": (
        field("pre_tokenizer", "add_prefix_space", True),
        "pre_tokenizer.add_prefix_space: found True",
    ),
    "no pattern": (field("pre_tokenizer", "use_regex", False), "pre_tokenizer.use_regex: found False, expected True"),
    "a normalizer": (field("normalizer", {"type": "NFC"}), "normalizer: found NFC, expected none"),
    "another decoder": (
        field("decoder", {"type": "WordPiece"}),
        "decoder.type: found 'WordPiece', expected 'ByteLevel'",
    ),
    "no merges": (field("model", "merges", None), "model.merges: found nothing, expected a JSON array"),
    "a wrong merge": (field("model", "merges", 4, 7), "tokenizer.json: merge 5: found 7, expected two tokens"),
    "half a merge": (field("model", "merges", 4, "ab"), "merge 5: found .'ab'., expected two tokens"),
    "a list of ids": (field("model", "vocab", []), "model.vocab: found a list"),
    "a wrong id": (field("added_tokens", 0, "id", 5), "tokenizer.json: token '<.endoftext.>' has id 5, expected 0"),
    "no id": (field("added_tokens", 0, "id", None), "added_tokens: token '<.endoftext.>': found id None"),
    "no content": (field("added_tokens", 0, "content", ["a"]), "added_tokens: found content"),
    "no entry": (field("added_tokens", 0, 3), "added_tokens: found a int, expected a JSON object"),
    "twice": (field("added_tokens", [{"content": EOS, "id": 0}] * 2), "expected a string, once"),
}


@pytest.mark.parametrize(("change", "message"), SPLIT.values(), ids=SPLIT)
def test_damaged_vocab_and_merges(toy_folder, tmp_path, change, message):
    check_damage(split_files(toy_folder, tmp_path / "toy"), change, message)


@pytest.mark.parametrize(("change", "message"), ONE.values(), ids=ONE)
def test_damaged_tokenizer_json(toy_folder, tmp_path, change, message):
    check_damage(copy(toy_folder, tmp_path / "toy"), change, message)


def check_damage(folder, change, message):
    assert BPETokenizer.from_folder(folder).vocab_size == 340
    change(folder)
    with pytest.raises(CheckpointError, match=message) as found:
        BPETokenizer.from_folder(folder)
    assert str(found.value).startswith(str(folder))
    assert "\n" not in str(found.value)


def test_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"none: no such folder, expected one with tokenizer.json, or vocab.json"):
        BPETokenizer.from_folder(tmp_path / "none")


def test_merges_of_characters_that_are_no_bytes(toy_folder, tmp_path):
    folder = split_files(toy_folder, tmp_path / "toy")
    vocab({"水": 340, "水a": 341})(folder)
    third_merge("水 a".encode())(folder)
    with pytest.raises(
        CheckpointError, match=r"merges.txt: merge 3 \(水 a\): found a character that stands for no byte"
    ):
        BPETokenizer.from_folder(folder)


def test_an_added_token_that_merges_make_as_well_is_text(toy, toy_folder, tmp_path):
    folder = copy(toy_folder, tmp_path / "toy")
    token = next(token for token, number in toy.vocabulary.tokens.items() if number == 339)
    write(folder / "added_tokens.json", {token: 339})
    assert BPETokenizer.from_folder(folder).vocabulary == toy.vocabulary
