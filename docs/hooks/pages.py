"""Pages of the package: public names in the place of ``<!-- api: MODULE -->``, help in that of ``<!-- cli -->``."""

import ast
import contextlib
import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_API = re.compile(r"<!-- api: ([\w.]+) -->")
_CLI = "<!-- cli -->"
_PASSED_ON = ("fit", "validate", "test")
_HELP_COLUMNS = 100


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Put in what a page asks for."""
    markdown = _API.sub(lambda match: directives(match[1]), markdown)
    return markdown.replace(_CLI, commands()) if _CLI in markdown else markdown


def public_names(module: str) -> list[str]:
    """The names that a package offers: those of ``__all__``, or what it imports under its own name."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if listed:
        return list(listed[0])
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names if alias.asname == alias.name]


def directives(module: str) -> str:
    """A directive of mkdocstrings for each public name."""
    return "\n\n".join(f"::: {module}.{name}" for name in public_names(module))


def commands() -> str:
    """The help of every command; of those that LightningCLI reads, without the list of all its options."""
    from bytelm.cli.app import build_command, walk_commands

    program = build_command()
    parts = [f"## `bytelm`\n\n```text\n{_help([])}\n```"]
    for name, _ in walk_commands(program):
        text = _help(name.split())
        if name in _PASSED_ON:
            text = text[: text.index("\noptions:")].split("\n\n", 1)[1]
        parts.append(f"## `bytelm {name}`\n\n```text\n{text.strip()}\n```")
    return "\n\n".join(parts)


def _help(words: list[str]) -> str:
    from bytelm.cli import main

    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        status = main([*words, "--help"])
    assert status == 0, words
    return written.getvalue().strip()
