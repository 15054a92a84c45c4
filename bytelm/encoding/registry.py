"""Encodings by name: built on first use, kept, and guarded against two tables with one name."""

import json
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from bytelm.encoding.base import FORMAT_VERSION, Encoding
from bytelm.encoding.dense import DenseEncoding
from bytelm.encoding.ranked2 import Ranked2Encoding
from bytelm.encoding.utf8 import Utf8Encoding
from bytelm.encoding.utf16 import Utf16Encoding
from bytelm.encoding.utf32 import Utf32Encoding
from bytelm.errors import EncodingError

_T = TypeVar("_T")

_FAMILIES: dict[str, Callable[[Mapping[str, Any]], Encoding]] = {
    "utf8": lambda table: Utf8Encoding(),
    "utf16": lambda table: Utf16Encoding(),
    "utf32": lambda table: Utf32Encoding(),
    "ranked2": lambda table: Ranked2Encoding(_field(table, "name", str), _ranked(table), _num_controls(table)),
    "dense": lambda table: DenseEncoding(
        _field(table, "name", str),
        _field(table, "s", int),
        _field(table, "c", int),
        _ranked(table),
        _num_controls(table),
    ),
}


def _field(table: Mapping[str, Any], field: str, kind: type[_T]) -> _T:
    value = table.get(field)
    if not isinstance(value, kind):
        raise EncodingError(f"encoding table: {field}: found {value!r}, expected a value of type {kind.__name__}")
    return value


def _ranked(table: Mapping[str, Any]) -> str:
    lines = _field(table, "ranked", list)
    if not all(isinstance(line, str) for line in lines):
        raise EncodingError("encoding table: ranked: found something else in the list, expected strings")
    return "".join(lines)


def _num_controls(table: Mapping[str, Any]) -> int:
    return len(_field(table, "controls", dict))


def _shipped(name: str) -> Encoding:
    source = resources.files("bytelm.encoding") / "tables" / f"{name}.json"
    return encoding_from_dict(json.loads(source.read_text(encoding="utf-8")))


def _ranked2() -> Encoding:
    dense = get_encoding("dense-ja")
    assert isinstance(dense, DenseEncoding)
    return Ranked2Encoding("ranked2", dense.ranked)


_BUILTIN: dict[str, Callable[[], Encoding]] = {
    "utf8": Utf8Encoding,
    "utf16": Utf16Encoding,
    "utf32": Utf32Encoding,
    "ranked2": _ranked2,
    "dense-ja": partial(_shipped, "dense-ja"),
    "dense-mul": partial(_shipped, "dense-mul"),
}
_known: dict[str, Encoding] = {}
_lock = threading.RLock()


def list_encodings() -> list[str]:
    """Names of the encodings of the package, then of those registered, in the order of registration."""
    with _lock:
        return list(dict.fromkeys([*_BUILTIN, *_known]))


def get_encoding(name: str) -> Encoding:
    """The encoding with this name; always the same object.

    Raises:
        EncodingError: no encoding has this name; the message lists those that exist.
    """
    with _lock:
        if name not in _known:
            if name not in _BUILTIN:
                raise EncodingError(f"encoding: found {name!r}, expected one of {', '.join(list_encodings())}")
            _known[name] = _BUILTIN[name]()
        return _known[name]


def register(encoding: Encoding) -> None:
    """Make ``encoding`` available to :func:`get_encoding`. Registering the same table again does nothing.

    Raises:
        EncodingError: the name is taken by an encoding with another digest.
    """
    with _lock:
        if encoding.name not in list_encodings():
            _known[encoding.name] = encoding
            return
        taken = get_encoding(encoding.name)
        if taken.digest != encoding.digest:
            raise EncodingError(
                f"encoding {encoding.name!r}: found digest {encoding.digest}, "
                f"expected {taken.digest}, which is registered under this name"
            )


def encoding_from_dict(table: Mapping[str, Any]) -> Encoding:
    """Rebuild an encoding from :meth:`Encoding.to_dict` and check it against the digest stored with it.

    Raises:
        EncodingError: a field is missing or wrong, the version is unknown, or the digest or the controls differ.
    """
    version = table.get("format_version")
    if version != FORMAT_VERSION:
        raise EncodingError(f"encoding table: found format_version {version!r}, expected {FORMAT_VERSION}")
    family = table.get("family")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise EncodingError(f"encoding table: found family {family!r}, expected one of {', '.join(_FAMILIES)}")
    encoding = _FAMILIES[family](table)
    built = encoding.to_dict()
    for field in ("name", "controls", "digest"):
        if table.get(field) != built[field]:
            raise EncodingError(
                f"encoding table {encoding.name!r}: {field}: found {table.get(field)!r}, "
                f"expected {built[field]!r} from its other fields"
            )
    return encoding


def read_table(path: Path) -> Encoding:
    """Read an encoding that ``write_table`` wrote; it is not registered.

    Raises:
        EncodingError: the file cannot be read, or is no valid table.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncodingError(f"{path}: {error}") from None
    if not isinstance(table, dict):
        raise EncodingError(f"{path}: found a JSON {type(table).__name__}, expected an object")
    try:
        return encoding_from_dict(table)
    except EncodingError as error:
        raise EncodingError(f"{path}: {error}") from None
