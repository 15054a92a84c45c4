"""The code that a model needs, as files of one folder that import each other, torch, numpy and transformers alone.

transformers copies from a folder the files that are reached from a class by relative imports
(``get_relative_imports`` of its ``dynamic_module_utils``, which reads lines ``from .module import name``). So modules
of this package are written out with that kind of import only, each name from the module that defines it, which leaves
the packages' ``__init__`` files out; and without jaxtyping, whose annotations become the plain types inside of them.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import bytelm

ENTRIES = ("bytelm.hf.configuration_bytelm", "bytelm.hf.tokenization_bytelm", "bytelm.hf.modeling_bytelm")
"""Modules of the classes that transformers looks for."""

_PACKAGE = "bytelm"
_HERE = "bytelm.hf."
_SHAPES = "jaxtyping"
_ALLOWED = {"numpy", "torch", "transformers", *sys.stdlib_module_names}
_ALLOWED_INSIDE = {"yaml"}
"""What transformers itself needs, where a function that is not called here imports it."""


def bundle(entries: Sequence[str] = ENTRIES) -> dict[str, str]:
    """Names of files and their texts: the entries and all modules that they need.

    Args:
        entries: full names of modules of this package.
    """
    files: dict[str, str] = {}
    needed: dict[str, set[str]] = {}
    waiting = list(entries)
    while waiting:
        module = _Module(waiting.pop())
        if module.name not in needed:
            files[module.file], needed[module.name] = module.rewritten(), module.needed
            waiting += module.needed
    for entry in entries:
        files[_Module(entry).file] += _listed(_reached(entry, needed))
    return dict(sorted(files.items()))


def _reached(entry: str, needed: Mapping[str, set[str]]) -> set[str]:
    """All modules that one of them needs."""
    reached: set[str] = set()
    waiting = [entry]
    while waiting:
        new = needed[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached - {entry}


def _listed(names: set[str]) -> str:
    """Lines that import modules and never run: transformers before 5 copies what a class's own file names, no more."""
    lines = [f"    from .{_flat(name)} import __name__ as _\n" for name in sorted(names)]
    return "\nif False:  # what transformers is to copy\n" + "".join(lines)


def _path(name: str) -> Path | None:
    """The file of a module of this package; None where there is no such module."""
    root = Path(bytelm.__file__).parent.joinpath(*name.split(".")[1:])
    path = root / "__init__.py" if root.is_dir() else root.with_suffix(".py")
    return path if path.is_file() else None


def _flat(name: str) -> str:
    """The name of a module in the folder."""
    return name.removeprefix(_HERE) if name.startswith(_HERE) else name.replace(".", "_")


@dataclass(frozen=True)
class _Edit:
    """A piece of source, in bytes of UTF-8, and what stands there instead."""

    start: int
    end: int
    text: str


@dataclass
class _Module:
    """One module of this package.

    Attributes:
        name: its full name.
        needed: modules that it imports, known once it was rewritten.
    """

    name: str
    needed: set[str] = field(default_factory=set)

    @property
    def file(self) -> str:
        """Its file in the folder."""
        return f"{_flat(self.name)}.py"

    @cached_property
    def source(self) -> bytes:
        """Its text."""
        path = _path(self.name)
        assert path is not None, self.name
        return path.read_bytes()

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax."""
        return ast.parse(self.source)

    def rewritten(self) -> str:
        """Its text with imports and annotations changed."""
        self._starts = [0]
        for line in self.source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        shapes = {alias.asname or alias.name for alias in self._imported(_SHAPES)}
        text = self.source
        for edit in sorted(self._edits(self.tree, shapes), key=lambda edit: -edit.start):
            text = text[: edit.start] + edit.text.encode() + text[edit.end :]
        return f"# The module {self.name}, as `bytelm convert` writes it; changes belong there.\n{text.decode()}"

    def defines(self, name: str) -> tuple[str, str]:
        """The module in which a name of this one is defined, and its name there."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == _PACKAGE:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _Module(node.module).defines(alias.name)
        return self.name, name

    def _imported(self, package: str) -> Iterator[ast.alias]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module == package:
                yield from node.names

    def _edits(self, node: ast.AST, shapes: set[str], inside: bool = False) -> Iterator[_Edit]:
        """Changes in a piece of syntax; ``inside``: of a function."""
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield self._edit(node, "")
                return
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == _PACKAGE:
                yield self._edit(node, self._relative(node))
                return
            case ast.ImportFrom(module=str(module)) if module == _SHAPES:
                yield self._edit(node, "")
                return
            case ast.Import() | ast.ImportFrom():
                self._check(node, inside)
                return
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=[plain, _])) if name in shapes:
                yield self._edit(node, ast.unparse(plain))
                return
        inside = inside or isinstance(node, ast.FunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from self._edits(child, shapes, inside)

    def _edit(self, node: ast.stmt | ast.expr, text: str) -> _Edit:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        return _Edit(start, self._starts[node.end_lineno - 1] + node.end_col_offset, text)

    def _relative(self, node: ast.ImportFrom) -> str:
        """The same names, each from the file of the module that defines it."""
        assert node.module is not None
        lines: dict[str, list[str]] = {}
        for alias in node.names:
            module, name = f"{node.module}.{alias.name}", None
            if _path(module) is None:
                module, name = _Module(node.module).defines(alias.name)
            self.needed.add(module)
            known = alias.asname or alias.name
            if name is None:
                # The first line is for transformers, which does not see the second one.
                lines[f"from .{_flat(module)} import __name__ as _"] = []
                lines[f"from . import {_flat(module)} as {known}"] = []
            else:
                lines.setdefault(f"from .{_flat(module)} import", []).append(
                    name if name == known else f"{name} as {known}"
                )
        between = "\n" + " " * node.col_offset
        return between.join(" ".join((line, ", ".join(names))).rstrip() for line, names in lines.items())

    def _check(self, node: ast.Import | ast.ImportFrom, inside: bool) -> None:
        """Every other module must be one that is there wherever transformers is."""
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        allowed = _ALLOWED | _ALLOWED_INSIDE if inside else _ALLOWED
        for name in names:
            assert name.split(".")[0] in allowed, f"{self.name}:{node.lineno}: imports {name}"
