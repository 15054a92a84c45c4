"""What is wrong with a training configuration, in one line with the dotted key."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from bytelm.config import Config
from bytelm.errors import ConfigError
from bytelm.model.config import ModelConfig
from bytelm.model.ends import DraftHeadsConfig, NextPatchConfig
from bytelm.training import LossConfig, OptimizerConfig

_NODES: Mapping[tuple[str, ...], type[Config]] = {
    ("model", "config"): ModelConfig,
    ("model", "next_patch"): NextPatchConfig,
    ("model", "draft_heads"): DraftHeadsConfig,
    ("model", "optimizer"): OptimizerConfig,
    ("model", "loss"): LossConfig,
}
_FILES = ("-c", "--config")
_UNKNOWN = re.compile(r"unrecognized arguments: (?:--)?(?P<key>[^\s=]+)|does not accept option '(?P<option>[^']+)'")
_WRONG_TYPE = re.compile(r'Parser key "(?P<key>[^"]+)": Expected an? (?P<kind>.+?)\. Got value: (?P<value>.*)')
_WRONG_VALUE = re.compile(
    r'Parser key "(?P<key>[^"]+)": Does not validate against any of the Union subtypes .*? Errors: - (?P<reasons>.*) '
    r"Given value type: .*? Given value: (?P<value>.*)"
)


class _Loader(yaml.SafeLoader):
    """YAML as jsonargparse reads it: 1e-5 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class ConfigExplainer:
    """Turns what jsonargparse raises into a :class:`ConfigError` whose message begins with the dotted key.

    jsonargparse spells out every type that a value might have had. Where the value belongs to a config of this package,
    the config itself says what is wrong; elsewhere the message is shortened.

    Args:
        args: the arguments that are parsed: the subcommand and its options.
    Attributes:
        parser: knows the names of all options; set while the command line is built.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.args = args
        self.parser: ArgumentParser | None = None

    def mentions(self, *path: str) -> bool:
        """Whether the files or options set the option of this dotted key.

        Raises:
            ConfigError: a file cannot be read as YAML.
        """
        return _node(self.read_given(), path) is not None

    def explain(self, error: Exception) -> ConfigError:
        """The error for what was raised while parsing."""
        message = _one_line(error)
        try:
            given = self.read_given()
            for path, config in _NODES.items():
                _check(config, _node(given, path), ".".join(path))
        except ConfigError as found:
            key = str(found).split(":")[0]
            if not key.startswith("model.") or re.search(rf"\b{re.escape(key.split('.')[-1])}\b", message):
                return found
        return ConfigError(self._shorten(message))

    def explain_values(self, error: Exception, values: Mapping[str, Any]) -> ConfigError:
        """The error for what was raised while building objects from parsed ``values``."""
        try:
            for path, config in _NODES.items():
                _check(config, _plain(_node(values, path)), ".".join(path))
        except ConfigError as found:
            return found
        return error if isinstance(error, ConfigError) else ConfigError(self._shorten(_one_line(error)))

    def read_files(self) -> dict[str, Any]:
        """The configuration files as one tree of plain values; errors as :meth:`read_given`."""
        tree: dict[str, Any] = {}
        for name, value in _options(self.args):
            if name in _FILES:
                _merge(tree, _read_config(value))
        return tree

    def read_given(self) -> dict[str, Any]:
        """The configuration files and options as one tree of plain values, as far as they are plain values.

        Raises:
            ConfigError: a file cannot be read as YAML.
        """
        tree: dict[str, Any] = {}
        for name, value in _options(self.args):
            if name in _FILES:
                _merge(tree, _read_config(value))
            elif name.startswith("--"):
                try:
                    plain = yaml.load(value, _Loader)
                except yaml.YAMLError:
                    plain = value
                for part in reversed(name.removeprefix("--").split(".")):
                    plain = {part: plain}
                _merge(tree, plain)
        return tree

    def _shorten(self, message: str) -> str:
        if match := _UNKNOWN.search(message):
            return self._unknown(match["key"] or match["option"])
        if match := _WRONG_VALUE.search(message):
            return f"{match['key']}: found {_cut(match['value'])}, expected {_expected(match['reasons'])}"
        if match := _WRONG_TYPE.search(message):
            return f"{match['key']}: found {match['value']!r}, expected {_kind(match['kind'])}"
        return re.sub(r'^Parser key "([^"]+)":', r"\1:", message)

    def _unknown(self, key: str) -> str:
        known = [] if self.parser is None else list(self.parser.get_defaults().keys())
        parts = key.split(".")
        for depth, part in enumerate(parts):
            beside = {
                name.split(".")[depth]
                for name in known
                if name.split(".")[:depth] == parts[:depth] and name.count(".") >= depth
            }
            if part not in beside:
                close = difflib.get_close_matches(part, beside, n=1)
                near = f", perhaps {'.'.join([*parts[:depth], *close])} is meant" if close else ""
                return f"{key}: unknown option{near}"
        return f"{key}: unknown option"


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options with their values, in order: ``--name value`` and ``--name=value``."""
    for i, arg in enumerate(args):
        if arg.startswith("-"):
            name, equals, value = arg.partition("=")
            following = args[i + 1] if i + 1 < len(args) else ""
            yield name, value if equals else following


def _read_config(value: str) -> Mapping[str, Any]:
    """A configuration file, or the text of one, which has lines; nothing of a file that is not there."""
    if "\n" in value:
        found = yaml.load(value, _Loader)
        return found if isinstance(found, Mapping) else {}
    return _read_yaml(Path(value)) if Path(value).is_file() else {}


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: found the byte {error.object[error.start]:02x} at {error.start}, expected UTF-8"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {_one_line(error)}") from None
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(f"{path}: found a {type(found).__name__}, expected a mapping of options")
    return found or {}


def _merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value


def _node(tree: Mapping[str, Any], path: Sequence[str]) -> Any:
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _plain(value: Any) -> Any:
    """Parsed values with the namespaces inside of lists as mappings."""
    match value:
        case Namespace():
            return _plain(vars(value))
        case Mapping():
            return {name: _plain(v) for name, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case _:
            return value


def _check(config: type[Config], values: Any, path: str) -> None:
    """Raise what the config says of ``values``; what is no mapping (a file, nothing) is not looked at."""
    if isinstance(values, Mapping):
        config.from_dict(values, path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _cut(value: str, longest: int = 120) -> str:
    return value if len(value) <= longest else f"{value[:longest]}…"


def _expected(reasons: str) -> str:
    """The alternatives of a union; only the one that came closest, where a class was named."""
    parts = [part for part in reasons.split(" - ") if part.strip()]
    classes = [part for part in parts if part.startswith("Problem with given class_path")]
    if classes:
        return f"a valid one: {classes[0].removeprefix('Problem with given class_path ')}"
    kinds = [_kind(part.removeprefix("Expected a ").removeprefix("Expected an ")) for part in parts]
    return " or ".join(dict.fromkeys(kinds))


def _kind(name: str) -> str:
    """``<class 'int'>`` as int, ``typing.Literal['a', 'b']`` as one of 'a', 'b'."""
    name = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", name).replace("NoneType", "null")
    return re.sub(r"(?:typing\.)?Literal\[([^\]]*)\]", r"one of \1", name)
