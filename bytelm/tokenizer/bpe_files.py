"""A byte-level BPE vocabulary from the files of a model's folder; nothing in them is executed or fetched."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bytelm.errors import CheckpointError
from bytelm.tokenizer.byte_level import BYTE_CHARACTERS, bytes_of_token

_TOKENIZER, _VOCAB, _MERGES = "tokenizer.json", "vocab.json", "merges.txt"
_ADDED, _CONFIG = "added_tokens.json", "tokenizer_config.json"
_CONTROL = re.compile(r"<\|[^|]+\|>")

_MODEL_FIELDS: Final[Mapping[str, tuple[Any, ...]]] = {
    "type": ("BPE", None),
    "dropout": (None, 0, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "ignore_merges": (None, False),
}
_PRE_TOKENIZER_FIELDS: Final[Mapping[str, tuple[Any, ...]]] = {
    "type": ("ByteLevel",),
    "add_prefix_space": (False,),
    "use_regex": (True, None),
}
"""What the fields of ``tokenizer.json`` may be; None: also missing, as in files of older versions."""

Merge = tuple[str, str]


@dataclass(frozen=True)
class BPEVocabulary:
    """What a byte-level BPE tokenizer is made of, checked: ids 0 to n-1 have one token each, tokens or controls.

    Attributes:
        tokens: the bytes and what the merges make, in the characters of ``BYTE_CHARACTERS``, with their ids.
        merges: pairs of tokens whose join is a token, the first to apply first.
        controls: control strings, as they look in text, with their ids, lowest first.
    """

    tokens: dict[str, int]
    merges: list[Merge]
    controls: dict[str, int]


def read_vocabulary(folder: Path) -> BPEVocabulary:
    """Read ``tokenizer.json``, or else ``vocab.json`` and ``merges.txt``, and ``added_tokens.json`` where there is one.

    Controls are all added tokens, and tokens like ``<|endoftext|>`` that no merge makes. Of ``tokenizer.json`` the
    post-processor, truncation and padding are not used: nothing is added to a text or cut from it.

    Raises:
        CheckpointError: a file is missing or damaged, is of another kind of tokenizer, or ids or merges do not fit
            together; the message names the file and what was found in it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected one with {_TOKENIZER}, or {_VOCAB} and {_MERGES}")
    if (folder / _TOKENIZER).is_file():
        place = folder / _TOKENIZER
        vocab, merges, added = _read_tokenizer(place)
    elif (folder / _VOCAB).is_file():
        place = folder / _VOCAB
        vocab, added = _ids(place, "", _read_json(place)), {}
        merges = _read_merges(folder / _MERGES)
    else:
        raise CheckpointError(f"{folder}: found neither {_TOKENIZER} nor {_VOCAB}, expected a byte-level BPE tokenizer")
    _check_merges(place if place.name == _TOKENIZER else folder / _MERGES, vocab, merges)
    if (folder / _ADDED).is_file():
        more = _ids(folder / _ADDED, "", _read_json(folder / _ADDED))
        _check_same(folder / _ADDED, vocab | added, more)
        added |= more
    _check_config(folder / _CONFIG)
    return _assemble(place, vocab, merges, added)


def vocabulary_to_dict(vocabulary: BPEVocabulary) -> dict[str, Any]:
    """What a ``tokenizer.json`` holds that :func:`read_vocabulary` and the package ``tokenizers`` read."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": text, **flags} for text, number in vocabulary.controls.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted((vocabulary.tokens | vocabulary.controls).items(), key=lambda item: item[1])),
            "merges": [list(pair) for pair in vocabulary.merges],
        },
    }


def _assemble(place: Path, vocab: dict[str, int], merges: list[Merge], added: dict[str, int]) -> BPEVocabulary:
    """Tell tokens from controls, and check that they fill the ids."""
    made = {*BYTE_CHARACTERS, *(left + right for left, right in merges)}
    tokens = {token: number for token, number in vocab.items() if token in made}
    controls = {token: number for token, number in (vocab | added).items() if token not in made}
    for byte, character in enumerate(BYTE_CHARACTERS):
        if character not in tokens:
            raise CheckpointError(f"{place}: byte {byte:#04x} has no token, expected {character!r} in the vocabulary")
    for token, number in controls.items():
        if token not in added and not _CONTROL.fullmatch(token):
            raise CheckpointError(
                f"{place}: token {token!r} (id {number}) is made by no merge, expected one in {_MERGES} that makes it, "
                "or its name among the added tokens"
            )
    holders: dict[int, str] = {}
    for token, number in chain(tokens.items(), controls.items()):
        if number in holders:
            raise CheckpointError(f"{place}: id {number} is that of {holders[number]!r} and of {token!r}, expected one")
        holders[number] = token
    for number in range(len(holders)):
        if number not in holders:
            raise CheckpointError(
                f"{place}: no token has id {number}, but one has id {max(holders)}; expected ids without a gap"
            )
    return BPEVocabulary(tokens, merges, dict(sorted(controls.items(), key=lambda item: item[1])))


def _check_merges(place: Path, vocab: Mapping[str, int], merges: Iterable[Merge]) -> None:
    seen: set[Merge] = set()
    for number, (left, right) in enumerate(merges, start=1):
        for token in (left, right, left + right):
            if token not in vocab:
                raise CheckpointError(
                    f"{place}: merge {number} ({left} {right}): found the token {token!r}, which has no id"
                )
        if bytes_of_token(left + right) is None:
            raise CheckpointError(
                f"{place}: merge {number} ({left} {right}): found a character that stands for no byte, expected those "
                "of byte-level BPE"
            )
        if (left, right) in seen:
            raise CheckpointError(f"{place}: merge {number} ({left} {right}): found a second time, expected once")
        seen.add((left, right))


def _read_tokenizer(path: Path) -> tuple[dict[str, int], list[Merge], dict[str, int]]:
    """Vocabulary, merges and added tokens of a ``tokenizer.json``; refuses what is no plain byte-level BPE."""
    data = _object(path, "", _read_json(path))
    model = _object(path, "model", data.get("model"))
    _check_fields(path, "model", model, _MODEL_FIELDS)
    if data.get("normalizer") is not None:
        raise CheckpointError(f"{path}: normalizer: found {_kind(data['normalizer'])}, expected none")
    pre_tokenizer = _object(path, "pre_tokenizer", data.get("pre_tokenizer"))
    _check_fields(path, "pre_tokenizer", pre_tokenizer, _PRE_TOKENIZER_FIELDS)
    if data.get("decoder") is not None:
        _check_fields(path, "decoder", _object(path, "decoder", data["decoder"]), {"type": ("ByteLevel",)})
    vocab = _ids(path, "model.vocab", model.get("vocab"))
    merges = []
    for number, item in enumerate(_list(path, "model.merges", model.get("merges")), start=1):
        pair = item.split(" ") if isinstance(item, str) else item
        merges.append(_merge(path, number, pair))
    added: dict[str, int] = {}
    for item in _list(path, "added_tokens", data.get("added_tokens", [])):
        entry = _object(path, "added_tokens", item)
        token = entry.get("content")
        if not isinstance(token, str) or token in added:
            raise CheckpointError(f"{path}: added_tokens: found content {token!r:.60}, expected a string, once")
        more = _ids(path, "added_tokens", {token: entry.get("id")})
        _check_same(path, vocab, more)
        added |= more
    return vocab, merges, added


def _read_merges(path: Path) -> list[Merge]:
    """The pairs of a ``merges.txt``: a version line, where there is one, then one pair per line."""
    lines = _read_text(path).split("\n")
    if lines[-1] == "":
        lines.pop()
    if lines and lines[0].startswith("#version"):
        lines.pop(0)
    return [_merge(path, number, line.rstrip("\r").split(" ")) for number, line in enumerate(lines, start=1)]


def _merge(path: Path, number: int, pair: Any) -> Merge:
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
        raise CheckpointError(f"{path}: merge {number}: found {pair!r:.60}, expected two tokens")
    return pair[0], pair[1]


def _check_same(path: Path, known: Mapping[str, int], more: Mapping[str, int]) -> None:
    """Refuse tokens of ``path`` that another part has under another id."""
    for token, number in more.items():
        if known.get(token, number) != number:
            raise CheckpointError(f"{path}: token {token!r} has id {number}, expected {known[token]} as elsewhere")


def _ids(path: Path, field: str, value: Any) -> dict[str, int]:
    """``value`` as tokens with their ids."""
    where = f"{path}: {field}: " if field else f"{path}: "
    for token, number in _object(path, field, value).items():
        if not token:
            raise CheckpointError(f"{where}found an empty token, expected at least one character")
        if any("\ud800" <= character <= "\udfff" for character in token):
            raise CheckpointError(f"{where}token {token!r}: found a lone surrogate, expected text")
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise CheckpointError(f"{where}token {token!r}: found id {number!r:.40}, expected a whole number from 0")
    return value


def _check_fields(path: Path, name: str, value: Mapping[str, Any], fields: Mapping[str, tuple[Any, ...]]) -> None:
    for field, expected in fields.items():
        if value.get(field) not in expected:
            raise CheckpointError(
                f"{path}: {name}.{field}: found {value.get(field)!r:.60}, expected {expected[0]!r} of byte-level BPE"
            )


def _check_config(path: Path) -> None:
    """Refuse a ``tokenizer_config.json`` that asks for a space before every text, which the other files may not say."""
    if path.is_file() and _object(path, "", _read_json(path)).get("add_prefix_space"):
        raise CheckpointError(f"{path}: add_prefix_space: found true, expected false")


def _object(path: Path, field: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {field + ': ' if field else ''}found {_kind(value)}, expected a JSON object")
    return value


def _list(path: Path, field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise CheckpointError(f"{path}: {field}: found {_kind(value)}, expected a JSON array")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, dict) and "type" in value:
        return str(value["type"])
    return "nothing" if value is None else f"a {type(value).__name__}"


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, expected part of a byte-level BPE tokenizer")
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as UTF-8: {error}") from None


def _read_json(path: Path) -> Any:
    def no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise CheckpointError(f"{path}: found the name {name!r} twice, expected it once")
            found[name] = value
        return found

    try:
        return json.loads(_read_text(path), object_pairs_hook=no_name_twice)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from None
