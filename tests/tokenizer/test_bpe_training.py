import collections
import itertools
import json

import pytest
import regex
from tokenizers import Tokenizer as TheirTokenizer

from bytelm.corpus import default_texts
from bytelm.errors import ConfigError
from bytelm.tokenizer import BPETokenizer, train_bpe, vocabulary_to_dict
from bytelm.tokenizer.byte_level import BYTE_CHARACTERS

WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
TEXTS = ["low low low lower lowest new newer newest wide widest", "港の朝、港の夜。", "港の朝市に魚がならぶ。"]


def counts_of_pairs(texts, merges):
    """How often each pair of neighbours occurs in the words of texts, after some merges, by definition."""
    counts = collections.Counter()
    for word, number in collections.Counter(w for text in texts for w in WORDS.findall(text)).items():
        parts = [BYTE_CHARACTERS[byte] for byte in word.encode()]
        for left, right in merges:
            at = 0
            while at < len(parts) - 1:
                if parts[at : at + 2] == [left, right]:
                    parts[at : at + 2] = [left + right]
                at += 1
        for pair in itertools.pairwise(parts):
            counts[pair] += number
    return counts


def test_every_merge_is_of_a_most_frequent_pair():
    vocabulary = train_bpe(TEXTS, 290)
    assert len(vocabulary.merges) == 290 - 257
    for number, merge in enumerate(vocabulary.merges):
        counts = counts_of_pairs(TEXTS, vocabulary.merges[:number])
        assert counts[merge] == max(counts.values())


def test_it_has_all_bytes_and_one_control_and_reads_any_text(tmp_path):
    texts = default_texts()[:200]
    vocabulary = train_bpe(texts, 600)
    tokenizer = BPETokenizer(vocabulary)
    assert tokenizer.vocab_size == 600
    assert list(vocabulary.controls) == ["<|endoftext|>"]
    for text in [*texts[:20], "\x00\x7f 🐱 <|endoftext|>"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert train_bpe(iter(texts), 600) == vocabulary
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(vocabulary_to_dict(vocabulary)), encoding="utf-8")
    assert BPETokenizer.from_folder(tmp_path).vocabulary == vocabulary
    theirs = TheirTokenizer.from_file(str(path))
    assert theirs.get_vocab_size() == 600
    for text in texts[:20]:
        assert theirs.encode(text).ids == tokenizer.encode(text).tolist()
    assert theirs.encode("<|endoftext|>").ids == [tokenizer.eos_id]


def test_short_texts_give_fewer_tokens_and_too_few_are_refused():
    assert BPETokenizer(train_bpe(["ab ab"], 1000)).vocab_size < 262
    assert BPETokenizer(train_bpe([], 257)).vocab_size == 257
    with pytest.raises(ConfigError, match="vocab_size: found 256, expected at least 257"):
        train_bpe(["ab"], 256)
