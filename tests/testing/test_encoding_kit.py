"""The kit of encodings passes those that are right and fails every seeded bug, by the checks said to catch it."""

import inspect
import re
import subprocess
import sys

import pytest

from bytelm.encoding import DenseEncoding, get_encoding
from bytelm.testing import coders, encoding_bugs, encodings
from bytelm.testing.encoding_bugs import ENCODING_BUGS, Plain
from bytelm.testing.encodings import CHECKS, run_encoding_kit


class Codec:
    """A codec of Python with nothing but both ways."""

    def __init__(self, name):
        self.name = name

    def encode(self, text):
        return text.encode(self.name)

    def decode(self, data):
        return data.decode(self.name)


def failures(reports):
    return {report.check: report.message for report in reports if report.failed}


def test_an_encoding_without_a_bug_passes():
    reports = run_encoding_kit(Plain())
    assert {report.check: report.outcome for report in reports} == dict.fromkeys(CHECKS, "passed")
    assert all(report.figures["cases"] >= 60 for report in reports)
    canonical = next(report for report in reports if report.check == "canonical")
    assert canonical.figures["accepted"] > 2


@pytest.mark.parametrize(
    ("bug", "check"),
    [(bug, check) for bug in ENCODING_BUGS for check in bug.checks],
    ids=lambda x: x if isinstance(x, str) else x.coder.__name__,
)
def test_every_bug_is_caught(bug, check):
    report = CHECKS[check](bug.coder(), encodings.NOTHING, "quick")
    assert report.check == check
    assert report.failed
    assert report.message


def test_the_table_of_bugs_is_the_one_in_the_documentation():
    rows = re.findall(r"^([A-Z]\w+) {2,}.*?\S {2,}(\S.*)$", encoding_bugs.__doc__, re.MULTILINE)
    assert {name: tuple(checks.split(", ")) for name, checks in rows} == {
        bug.coder.__name__: bug.checks for bug in ENCODING_BUGS
    }
    assert {check for bug in ENCODING_BUGS for check in bug.checks} == set(CHECKS)
    classes = {c for _, c in inspect.getmembers(encoding_bugs, inspect.isclass) if issubclass(c, Plain)}
    assert classes == {Plain, *(bug.coder for bug in ENCODING_BUGS)}


def test_the_table_of_checks_is_the_one_in_the_documentation():
    assert re.findall(r"^([a-z -]+?) {2,}\S", encodings.__doc__, re.MULTILINE)[1:] == list(CHECKS)


@pytest.mark.parametrize(
    ("bug", "check", "case"),
    [
        (encoding_bugs.Ucs2, "round trip", r"'\U00010000', encoded as 00, decodes to '\x00'"),
        (encoding_bugs.EndsAtNull, "round trip", r"'\x00', encoded as 00, decodes to ''"),
        (encoding_bugs.Overlong, "canonical", r"c0 80 decodes to '\x00', which is encoded as 00"),
        (encoding_bugs.BareEscape, "prefix-free", "the word 1b of U+001B begins 1b 00 00 00 80 of U+0080"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_messages_hold_the_smallest_case(bug, check, case):
    assert CHECKS[check](bug(), encodings.NOTHING, "quick").message == case


def test_two_runs_find_the_same():
    first, second = (CHECKS["canonical"](encoding_bugs.TakesSurrogates(), encodings.NOTHING, "quick") for _ in range(2))
    assert first == second


def test_a_pair_of_functions_is_enough():
    reports = {report.check: report for report in run_encoding_kit(Codec("utf-32-be"))}
    assert failures(reports.values()) == {}
    skipped = {name: report.message for name, report in reports.items() if report.outcome == "skipped"}
    assert skipped == {
        "replacement": "replace: decode takes no errors",
        "streaming": "streaming: no decoder",
        "controls": "controls: no controls",
        "batch": "batch: no encode_batch",
        "boundaries": "boundaries: no complete",
        "escapes": "escapes: decode takes no errors",
        "automaton": "automaton: no automaton",
    }


@pytest.mark.parametrize(
    ("codec", "found"),
    [
        ("utf-16-le", set()),
        ("utf-16", {"concatenation", "canonical"}),
        ("utf-8-sig", {"concatenation", "canonical"}),
        ("latin-1", {"round trip"}),
    ],
)
def test_what_is_known_of_codecs_is_found(codec, found):
    seen = failures(run_encoding_kit(Codec(codec)))
    assert found <= seen.keys()
    assert bool(found) == bool(seen), seen


def test_what_is_said_to_be_lacking_is_left_out(monkeypatch):
    monkeypatch.setitem(coders._EXAMPLES, "quick", 20)
    reports = run_encoding_kit(Plain(), lacks={"offsets": "no places", "controls": "none of ours"})
    by_name = {report.check: report for report in reports}
    assert by_name["error positions"].message == "offsets: no places"
    assert by_name["controls"].message == "controls: none of ours"
    assert by_name["streaming"].left_out == ("offsets: no places",)
    assert failures(reports) == {}
    hidden = {"offsets": "no places"}
    assert not CHECKS["streaming"](encoding_bugs.Plain(), hidden, "quick").failed
    assert CHECKS["streaming"](encoding_bugs.ForgetsTail(), hidden, "quick").failed


def test_an_encoding_that_raises_fails_with_the_case(monkeypatch):
    monkeypatch.setitem(coders._EXAMPLES, "quick", 20)

    class Broken(Plain):
        def encode(self, text, errors="strict"):
            return super().encode(text, errors) if text.isascii() else 1 / 0

    reports = run_encoding_kit(Broken())
    assert {"round trip", "concatenation", "canonical"} <= failures(reports).keys()
    assert failures(reports)["round trip"].endswith("ZeroDivisionError: division by zero")


class RareClash(Plain):
    """The words of two characters of 1,112,064 are one."""

    def encode(self, text, errors="strict"):
        return super().encode(text.replace("\U00054321", "\U00054322"), errors)


@pytest.mark.slow
def test_all_of_unicode_is_gone_through_at_level_full(monkeypatch):
    monkeypatch.setattr("bytelm.testing.coders._EXAMPLES", {"quick": 20, "full": 20})
    assert not CHECKS["prefix-free"](RareClash(), encodings.NOTHING, "quick").failed, "too rare for the quick level"
    report = CHECKS["prefix-free"](RareClash(), encodings.NOTHING, "full")
    assert re.search(r"of U\+54321 begins .* of U\+54322", report.message)


def test_a_table_of_ones_own_passes(monkeypatch):
    monkeypatch.setitem(coders._EXAMPLES, "quick", 20)
    assert failures(run_encoding_kit(DenseEncoding("mine", 200, 40, "のにはをたが", num_controls=16))) == {}


def test_a_message_says_that_hypothesis_is_missing():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import bytelm.testing\n"
        "from bytelm.errors import ConfigError\n"
        "try:\n    import bytelm.testing.encodings\n"
        "except ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "hypothesis: not installed, expected it: pip install 'bytelm[notebooks]'\n"


@pytest.mark.slow
def test_every_encoding_passes_at_level_full():
    for name in ("utf8", "dense-ja", "utf16"):
        assert failures(run_encoding_kit(get_encoding(name), level="full")) == {}
