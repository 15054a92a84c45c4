"""README and the site say what is there: code compiles, lines are read by the program, the site builds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import ROOT, check_fit_arguments, check_line, find_command, logical_lines, options_of, words_of

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and torch give advice

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXECUTED = {"docs/guides/encodings.md"}
"""Pages whose Python is run, all of a page in one namespace; that of others is compiled."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`(bytelm [^`]+)`(?!`)")
_ELSEWHERE = re.compile(r"^(?:https?:|#|mailto:)")


def _name(path):
    return str(path.relative_to(ROOT))


def _blocks(path, *languages):
    text = path.read_text(encoding="utf-8")
    return [body for language, body in _BLOCK.findall(text) if language in languages]


def _lines(path):
    lines = [line for body in _blocks(path, "", "bash", "console") for line in logical_lines(body)]
    return [line.strip().removeprefix("$ ") for line in lines if line.strip().removeprefix("$ ").startswith("bytelm ")]


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_python_compiles_or_runs(path):
    namespace = {"__name__": "page"}
    for number, body in enumerate(_blocks(path, "python")):
        code = compile(body, f"{_name(path)}, block {number}", "exec")
        if _name(path) in EXECUTED:
            exec(code, namespace)


def test_some_python_runs():
    assert all(_blocks(ROOT / name, "python") for name in EXECUTED)


def test_lines_are_read_by_the_program():
    of_fit, refused = [], []
    lines = [(path, line) for path in PAGES for line in _lines(path)]
    assert len(lines) > 30
    for path, line in lines:
        try:
            of_fit.append(check_line(line) or [])
        except Exception as error:  # noqa: BLE001 (all of them are told)
            refused.append(f"{_name(path)}: {line}: {error}")
    assert refused == []
    assert check_fit_arguments(of_fit) > 10


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_commands_in_sentences_exist(path):
    prose = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    for quoted in _INLINE.findall(prose):
        first, *others = quoted.split(" | ")
        words = words_of(first)
        command, name, rest = find_command(words)
        assert name or words[1].startswith("--") or words[1].isupper(), (path, quoted)
        for other in others:
            assert find_command(["bytelm", *name.split()[:-1], other.split()[0]])[1], (path, quoted)
        unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - options_of(command)
        known_to_fit = {"--config", "--twin", "--resume", "--print_config"}
        assert all("." in word or word in known_to_fit for word in unknown), (path, quoted)


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_files_that_are_linked_are_there(path):
    prose = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not _ELSEWHERE.match(target):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_a_line_that_is_wrong_is_noticed():
    for line in ("bytelm scor model x", "bytelm score model x --laws all", "bytelm compare"):
        with pytest.raises(Exception, match=r".") as caught:
            check_line(line)
        assert not isinstance(caught.value, KeyboardInterrupt)
    with pytest.raises(Exception, match=r"trainer.max_stepz"):
        check_fit_arguments([["--trainer.max_stepz", "3"]])


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    for page in pages:
        html = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"' >]+)", html)
        fetched += [tag for tag in re.findall(r"<link[^>]*>", html) if "stylesheet" in tag or "preload" in tag]
        assert not [found for found in fetched if "//" in found], page
    text = (tmp_path / "api" / "hub.html").read_text(encoding="utf-8")
    assert ":class:`" not in text
    assert 'id="bytelm.hub.load"' in text or 'id="bytelm.hub.language_model.load"' in text


def test_every_public_name_has_a_page():
    """A package with public names is on a page of the API."""
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    for path in sorted((ROOT / "bytelm").glob("*/__init__.py")):
        package = path.parent.name
        if re.search(r"^from bytelm\.\S+ import", path.read_text(encoding="utf-8"), re.MULTILINE) and package != "cli":
            assert f"<!-- api: bytelm.{package} -->" in pages, package


def test_the_hook_is_no_part_of_the_package():
    assert not any("mkdocs" in path.read_text(encoding="utf-8") for path in Path(ROOT / "bytelm").rglob("*.py"))
