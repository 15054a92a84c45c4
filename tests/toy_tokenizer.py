"""A vocabulary of single bytes for the toy checkpoints."""

import json

from toy_checkpoints import TOKENS

from bytelm.tokenizer.byte_level import BYTE_CHARACTERS


def with_tokenizer(folder, tokens=TOKENS):
    """A vocabulary of all bytes, EOS, and nothing else."""
    vocab = {character: number for number, character in enumerate(sorted(BYTE_CHARACTERS))}
    extra = {f"<|extratoken_{n}|>": 257 + n for n in range(tokens - 257)}
    (folder / "vocab.json").write_text(json.dumps({**vocab, "<|endoftext|>": 256}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    if extra:
        (folder / "added_tokens.json").write_text(json.dumps(extra), encoding="utf-8")
    return folder
