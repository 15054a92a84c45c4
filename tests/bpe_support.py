"""A toy byte-level BPE, and the same algorithm once more in plain Python."""

import itertools
import json
import shutil
from pathlib import Path

import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ALPHABET = pre_tokenizers.ByteLevel.alphabet()
EOS = "<|endoftext|>"
GPT2_PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
TEXT = [
    "The ferry leaves at nine, and the ferryman won't wait; they'll row, I'm told, if they've missed it.",
    "El niño comió una piña pequeña en la montaña. 川の水は冷たい。水の音がする。川の魚を見る。",
    "for i in range(10):\n\tif i == 7:\n\t\tcontinue\n    print(i, 100, 1000)\r\n🐟🐟 fish 🐟",
]


def train(folder: Path, size: int = 340) -> Path:
    """Write ``tokenizer.json`` of a vocabulary that was trained on ``TEXT``; EOS has id 0."""
    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[EOS], initial_alphabet=ALPHABET, show_progress=False, min_frequency=1
    )
    coder.train_from_iterator(TEXT, trainer)
    folder.mkdir(parents=True)
    coder.save(str(folder / "tokenizer.json"))
    return folder


def split_files(source: Path, folder: Path) -> Path:
    """Write the vocabulary of a ``tokenizer.json`` as ``vocab.json`` and ``merges.txt``."""
    folder.mkdir(parents=True)
    model = read(source / "tokenizer.json")["model"]
    write(folder / "vocab.json", model["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_bytes("\n".join([*lines, ""]).encode())
    return folder


def copy(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder, copy_function=shutil.copyfile))


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


class SlowBPE:
    """The definition: cut into words, write their bytes as characters, join the pair of lowest rank until none is left.

    Controls are not known.
    """

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
        own = [b for b in range(256) if chr(b).isprintable() and not chr(b).isspace()]
        others = iter(range(256, 512))
        self.characters = [chr(b) if b in own else chr(next(others)) for b in range(256)]
        self.vocab, self.ranks = vocab, {tuple(pair): rank for rank, pair in enumerate(merges)}

    def encode(self, text: str) -> list[int]:
        return [self.vocab[part] for word in GPT2_PATTERN.findall(text) for part in self._parts(word)]

    def _parts(self, word: str) -> list[str]:
        parts = [self.characters[byte] for byte in word.encode()]
        while True:
            pairs = [(self.ranks[pair], pair) for pair in itertools.pairwise(parts) if pair in self.ranks]
            if not pairs:
                return parts
            _, (left, right) = min(pairs)
            joined, index = [], 0
            while index < len(parts):
                both = parts[index : index + 2] == [left, right]
                joined.append(left + right if both else parts[index])
                index += 1 + both
            parts = joined

    def decode(self, ids: list[int]) -> bytes:
        tokens = {number: token for token, number in self.vocab.items()}
        return bytes(self.characters.index(character) for number in ids for character in tokens[number])
