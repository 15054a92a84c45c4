"""Frozen configuration trees: validated, strict about names, and the same after a round trip through YAML."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from bytelm.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound="Config")
"""``typing.Self``, in the form that run-time type checkers of class decorators know."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration. Subclasses are frozen, keyword-only dataclasses of plain values and other configs.

    ``validate`` of each node runs on construction; :meth:`from_dict` runs it again with the dotted path of the node.

    Attributes:
        usual: whether a mapping that names no ``kind`` means this one of several.
    """

    usual: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check this node.

        Raises:
            ConfigError: names the field, the value found and the value expected.
        """

    def require(self, condition: bool, field: str, expected: str) -> None:
        """Raise unless ``condition``; ``expected`` completes the sentence "expected …"."""
        if not condition:
            raise ConfigError(f"{field}: found {getattr(self, field)!r}, expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain dicts, lists and scalars, in field order."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls: type[ConfigT], data: object, path: str = "") -> ConfigT:
        """Build the tree from plain values.

        Args:
            data: a mapping of field names to values; missing fields take their defaults.
            path: dotted path of this node, used in messages.
        Raises:
            ConfigError: an unknown or missing field, or a value of the wrong type, by its dotted path.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"{path or cls.__name__}: found {data!r}, expected a mapping of fields of {cls.__name__}")
        hints = typing.get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for name in data:
            if name not in fields:
                raise ConfigError(f"{_join(path, name)}: unknown field, expected one of {', '.join(fields)}")
        values = {}
        for name, field in fields.items():
            if name in data:
                values[name] = _build(hints[name], data[name], _join(path, name))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ConfigError(f"{_join(path, name)}: missing, and it has no default")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(_join(path, str(error))) from None

    def to_yaml(self) -> str:
        """The tree as a YAML document."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls: type[ConfigT], source: str | Path) -> ConfigT:
        """Read a YAML document (text), or the file at a :class:`~pathlib.Path`.

        Raises:
            ConfigError: the file cannot be read, or the document is not YAML or not a valid tree.
        """
        import yaml

        where = source if isinstance(source, Path) else "document"
        try:
            text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
            data = yaml.safe_load(text)
        except OSError as error:
            raise ConfigError(f"{where}: cannot be read: {error.strerror or error}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
        return cls.from_dict(data)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(value: Any) -> Any:
    match value:
        case Config():
            return value.to_dict()
        case tuple() | list():
            return [_plain(v) for v in value]
        case _:
            return value


def _build(hint: Any, value: Any, path: str) -> Any:
    """Turn a plain ``value`` into the type ``hint``, or raise with ``path``."""
    origin = get_origin(hint)
    if isinstance(hint, type) and issubclass(hint, Config):
        return value if isinstance(value, hint) else hint.from_dict(value, path)
    if origin in (Union, types.UnionType):
        return _build_union(get_args(hint), value, path)
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{path}: found {value!r}, expected one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}: found {value!r}, expected a list")
        item = get_args(hint)[0]
        return tuple(_build(item, v, f"{path}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ConfigError(f"{path}: found {value!r}, expected {hint.__name__}")
    return value


def _build_union(hints: tuple[Any, ...], value: Any, path: str) -> Any:
    """Choose the member of a union: ``None``, the config whose ``kind`` matches, or the first type that accepts."""
    if value is None and type(None) in hints:
        return None
    members = [h for h in hints if h is not type(None)]
    configs = [h for h in members if isinstance(h, type) and issubclass(h, Config)]
    if isinstance(value, Mapping) and configs:
        kinds = {typing.get_type_hints(c).get("kind"): c for c in configs}
        by_name = {get_args(k)[0]: c for k, c in kinds.items() if k is not None}
        if len(configs) == 1:
            return configs[0].from_dict(value, path)
        usual = next((name for name, config in by_name.items() if config.usual), None)
        kind = value.get("kind", usual)
        if not isinstance(kind, str) or kind not in by_name:
            raise ConfigError(f"{path}.kind: found {kind!r}, expected one of {', '.join(by_name)}")
        return by_name[kind].from_dict(value, path)
    errors = []
    for member in members:
        try:
            return _build(member, value, path)
        except ConfigError as error:
            errors.append(str(error))
    raise ConfigError("; ".join(errors))
