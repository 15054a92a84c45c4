"""Texts, corpora, encodings and tokenizers of a study: made once, kept in its output folder."""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytelm.corpus import Corpus, iter_documents, split_default_texts
from bytelm.errors import ConfigError
from bytelm.tokenizer import BPETokenizer

from .commands import bytelm

_SPLITS = ("train", "valid", "test")
_SAMPLED_CHARACTERS = 1 << 20
_TENTHS = {8: "valid", 9: "test"}
"""Documents of a text without splits of its own, by a hash of their id modulo ten; the others train."""


@dataclass(frozen=True)
class Text:
    """Files of documents, one for each split.

    Attributes:
        name: of the text.
        files: by split.
    """

    name: str
    files: dict[str, Path]

    def documents(self, split: str) -> list[str]:
        """The texts of a split."""
        return [document.text for document in iter_documents(self.files[split])]


@dataclass(frozen=True)
class Symbols:
    """What a model reads a text as.

    Attributes:
        per_char: symbols per character of the training text, those before and after documents included.
        fit: settings for ``bytelm fit``: corpora, and encoding or tokenizer.
        tokens: V of a tokenizer; None for bytes.
    """

    per_char: float
    fit: dict[str, Any]
    tokens: int | None


class Workshop:
    """Makes what cells need, and finds it again.

    Args:
        out: folder for what is made.
        data: folder of the real texts; None for the embedded text alone.
        embedded: whether every text is the embedded one.
    """

    def __init__(self, out: Path, data: Path | None, *, embedded: bool) -> None:
        if not embedded and data is None:
            raise ConfigError(
                "--data: found none, expected the folder of the texts (or BYTELM_STUDY_DATA, or --size smoke)"
            )
        self.out, self.data, self.embedded = out, data, embedded
        self._tokenized: dict[Path, Symbols] = {}

    def text(self, spec: dict[str, Any]) -> Text:
        """The text that a configuration names.

        Args:
            spec: ``name``, and either ``train``, ``valid`` and ``test``, names of files, or ``file``, which is split by
                a hash of ``id``; ``where`` chooses documents by their fields. With ``characters`` the first documents
                of ``train`` are all there is, of at least so many.
        """
        name = "embedded" if self.embedded else spec["name"]
        if self.embedded:
            return self._written(name, self._embedded_texts)
        if "file" not in spec:
            files = {split: self._source(spec[split]) for split in _SPLITS}
            if least := spec.get("characters"):
                files["train"] = self._beginning(name, files["train"], least)
            return Text(name, files)
        return self._written(name, lambda: self._split_by_id(spec))

    def symbols(self, text: Text, study: dict[str, Any]) -> Symbols:
        """What the settings ask for: a BPE where they name ``bpe``, else an encoding.

        Args:
            text: that is read.
            study: ``encoding``, a name or ``{order: …}`` (and ``on``, the text that decides the table); or ``bpe``,
                entries that are learned from the text.
        """
        if study.get("bpe"):
            return self._tokens(text, int(study["bpe"]))
        encoding = self._encoding(text, study["encoding"])
        corpora = {split: self._corpus(text, split, encoding) for split in ("train", "valid")}
        per_char = Corpus.open(corpora["train"], verify=False).manifest.bytes_per_character
        data = {split: str(folder) for split, folder in corpora.items()}
        return Symbols(per_char, {"model": {"encoding": encoding}, "data": data}, None)

    def _tokens(self, text: Text, vocab_size: int) -> Symbols:
        folder = self.out / "bpe" / f"{text.name}-{vocab_size}"
        with self.alone("bpe"):
            if not (folder / "tokenizer.json").is_file():
                bytelm("tokenizer", "train", text.files["train"], "--out", folder, "--vocab-size", vocab_size)
        if folder not in self._tokenized:
            self._tokenized[folder] = self._count_tokens(text, folder)
        return self._tokenized[folder]

    def _count_tokens(self, text: Text, folder: Path) -> Symbols:
        tokenizer = BPETokenizer.from_folder(folder)
        data = {split: str(self._corpus(text, split, "utf8")) for split in ("train", "valid")}
        characters = tokens = 0
        for document in iter_documents(text.files["train"]):
            characters, tokens = characters + len(document.text), tokens + 1 + len(tokenizer.encode(document.text))
            if characters > _SAMPLED_CHARACTERS:
                break
        fit = {"model": {"tokenizer": str(folder)}, "data": data}
        return Symbols(tokens / characters, fit, tokenizer.vocab_size)

    def _beginning(self, name: str, source: Path, least: int) -> Path:
        path = self.out / "texts" / f"{name}-train.jsonl"
        with self.alone(name):
            if not path.is_file():
                taken, characters = [], 0
                for document in iter_documents(source):
                    taken.append(document.text)
                    characters += len(document.text)
                    if characters >= least:
                        break
                _write_documents(path, taken)
        return path

    def _encoding(self, text: Text, asked: str | dict[str, Any]) -> str:
        """A name that ``--encoding`` takes: of the registry, or the path of a table that is fitted here."""
        if isinstance(asked, str):
            return asked
        name = f"dense-{text.name}-{asked['order']}"
        table = self.out / "encodings" / f"{name}.json"
        with self.alone(name):
            if not table.is_file():
                table.parent.mkdir(parents=True, exist_ok=True)
                order = asked["order"]
                bytelm("encoding", "fit", text.files["train"], "--name", name, "--order", order, "--out", table)
        return str(table)

    def _corpus(self, text: Text, split: str, encoding: str) -> Path:
        folder = self.out / "corpora" / f"{text.name}-{Path(encoding).stem}-{split}"
        with self.alone(folder.name):
            if not (folder / "manifest.json").is_file():
                bytelm("corpus", "build", text.files[split], "--encoding", encoding, "--out", folder, "--workers", 0)
        return folder

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """While one process makes something, others that need it wait; its end, however it comes, lets them go on."""
        folder = self.out / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _source(self, name: str) -> Path:
        assert self.data is not None
        path = self.data / name
        if not path.is_file():
            raise ConfigError(f"--data: {path}: no such file, expected one of the texts that the study reads")
        return path

    def _written(self, name: str, texts: Callable[[], dict[str, list[str]]]) -> Text:
        folder = self.out / "texts"
        files = {split: folder / f"{name}-{split}.jsonl" for split in _SPLITS}
        with self.alone(name):
            if not all(path.is_file() for path in files.values()):
                for split, documents in texts().items():
                    _write_documents(files[split], documents)
        return Text(name, files)

    def _embedded_texts(self) -> dict[str, list[str]]:
        train, held_out = split_default_texts()
        half = len(held_out) // 2
        return {"train": train, "valid": held_out[:half], "test": held_out[half:]}

    def _split_by_id(self, spec: dict[str, Any]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {split: [] for split in _SPLITS}
        where = spec.get("where", {})
        for document in iter_documents(self._source(spec["file"]), labels=("id", *where)):
            key, *values = document.labels
            if values == list(where.values()):
                digest = hashlib.sha256(str(key).encode()).digest()
                found[_TENTHS.get(int.from_bytes(digest[:8], "big") % 10, "train")].append(document.text)
        for split, documents in found.items():
            if not documents:
                raise ConfigError(f"{spec['file']}: found no document for {split} with {where}, expected some")
        return found


def _write_documents(path: Path, texts: Iterable[str]) -> None:
    """JSON lines, the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8"
    )
    partial.replace(path)
