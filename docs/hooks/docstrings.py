"""Docstrings as Markdown: roles of Sphinx become links where the site has their object, tables keep their columns."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`(~?)([\w.]+)`")
_TABLE = re.compile(r"^(?:=+ +=+.*\n)(?:.*\n)*?(?:=+ +=+.*\n)(?:.*\n)*?=+ +=+.*$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites every docstring once the package is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite that of an object."""
        if obj.docstring is not None:
            value = _TABLE.sub(lambda match: f"```text\n{match[0]}\n```", obj.docstring.value)
            obj.docstring.value = _ROLE.sub(lambda match: _reference(match, obj), value)


def _reference(match: re.Match[str], obj: griffe.Object) -> str:
    """A link to a dotted name, which is text where the site has no such object; other names as code."""
    short, name = match[1], match[2]
    shown = name.rpartition(".")[2] if short else name
    if not name.startswith("bytelm."):
        name = f"{_scope(obj)}.{name}"
    return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'


def _scope(obj: griffe.Object) -> str:
    """The module of an object, in which its docstring looks up names."""
    return obj.module.path
