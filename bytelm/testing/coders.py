"""An encoding under test, as the checks of :mod:`bytelm.testing.encodings` see it, and how they look for a case."""

import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, TypeVar

from bytelm.encoding.convert import ByteData
from bytelm.errors import BytelmError
from bytelm.testing.reports import Findings, Level, Mismatch, Report, reporting
from bytelm.testing.text_strategies import byte_strings, texts

from hypothesis import HealthCheck, Phase, Verbosity, given, settings  # isort: skip (text_strategies says if missing)
from hypothesis import strategies as st  # isort: skip

_Case = TypeVar("_Case")

Ability = Literal["replace", "offsets", "controls", "streaming", "batch", "boundaries", "escapes", "automaton"]
"""What an encoding may lack; ``offsets``: its errors say where."""

Without = Mapping[Ability, str]
"""What an encoding lacks, with the reason that reports give for what they leave out."""

NOTHING: Final[Without] = MappingProxyType({})

_ATTRIBUTES: Final[Mapping[Ability, tuple[str, ...]]] = {
    "controls": ("controls",),
    "streaming": ("decoder",),
    "batch": ("encode_batch", "decode_batch"),
    "boundaries": ("complete", "char_starts"),
    "automaton": ("automaton",),
}
_MODES: Final[Mapping[str, Ability]] = {"replace": "replace", "surrogateescape": "escapes"}
_EXAMPLES: Final = {"quick": 60, "full": 3_000}
_REFUSALS: Final = (BytelmError, ValueError)  # UnicodeError is a ValueError
_POSITION: Final = re.compile(r"(?:byte offset|text index) (\d+)")


class Coder(Protocol):
    """The least that an encoding has."""

    def encode(self, text: str, /) -> ByteData:
        """The bytes of a text."""
        ...

    def decode(self, data: bytes, /) -> str:
        """The text of bytes; raises ``EncodingError`` or ``ValueError`` where they are none."""
        ...


class Subject:
    """An encoding under test, as every check sees it: plain bytes, and refusals as values."""

    def __init__(self, coder: Any, findings: Findings, level: Level) -> None:
        self.coder, self.findings, self.level = coder, findings, level

    def encode(self, text: str, *errors: str) -> bytes:
        """Its bytes of a text."""
        return bytes(self.coder.encode(text, *errors))

    def decode(self, data: bytes, *errors: str) -> str:
        """Its text of bytes, which must be a string."""
        found = self.coder.decode(data, *errors)
        self.findings.require(isinstance(found, str), f"{shown(data)} decodes to {found!r}, expected a string")
        return str(found)

    def refusal(self, work: Callable[..., object], *args: object) -> Exception | None:
        """The error of a call that refuses, or None."""
        try:
            work(*args)
        except _REFUSALS as error:
            return error
        return None

    def position(self, error: Exception) -> int:
        """Where an error says that it is."""
        start = getattr(error, "start", None)
        match = _POSITION.match(str(error))
        found = int(match[1]) if match else start
        if not isinstance(found, int):
            raise Mismatch(
                f"the error says {str(error)!r}, expected it to begin with 'byte offset N' or 'text index N'"
            )
        return found

    def outcome(self, work: Callable[..., str], *args: object) -> str:
        """The text, or the place of the error, to be compared and shown."""
        try:
            return f"text {work(*args)!a}"
        except _REFUSALS as error:
            told = f" at byte {self.position(error)}" if self.findings.has("offsets") else ""
            return f"an error{told}"

    @property
    def controls(self) -> Mapping[str, bytes]:
        """Names and words."""
        return self.coder.controls if hasattr(self.coder, "controls") else {}

    def modes(self) -> list[str]:
        """The values of ``errors`` under which decoding is checked."""
        found = [mode for mode, ability in _MODES.items() if self.findings.has(ability)]
        return ["strict", *found]

    def data(self) -> st.SearchStrategy[bytes]:
        """Byte strings near its borders."""
        return byte_strings(self.coder, self.controls.values(), escapes=self.findings.has("escapes"))

    def texts(self) -> st.SearchStrategy[str]:
        """Text with names of controls."""
        return texts([*self.controls])

    def search(self, strategy: st.SearchStrategy[_Case], body: Callable[[_Case], None]) -> None:
        """Look for a case that ``body`` raises for; raise that of the smallest. The cases are always the same."""
        failed: list[None] = []

        @settings(
            max_examples=_EXAMPLES[self.level],
            phases=[Phase.generate, Phase.shrink],
            deadline=None,
            database=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        @given(strategy)
        def one(case: _Case) -> None:
            if not failed:
                self.findings.case()
            try:
                body(case)
            except Mismatch:
                failed.append(None)
                raise
            except Exception as error:
                failed.append(None)
                raise Mismatch(f"{case!a}: {type(error).__name__}: {error}") from error

        one()


def report_on(
    name: str, body: Callable[[Subject], None], coder: Coder, lacks: Without, level: Level, *needs: Ability
) -> Report:
    """Run the body of a check on an encoding, with what is seen to be missing left out.

    Args:
        name: of the check.
        body: raises :class:`Mismatch`.
        coder: under test.
        lacks: what it cannot do, beside what it has no attribute for.
        level: how long to look.
        needs: without which the check is skipped.
    """
    missing: dict[Ability, str] = {}
    for ability, attributes in _ATTRIBUTES.items():
        absent = [attribute for attribute in attributes if not hasattr(coder, attribute)]
        if absent:
            missing[ability] = f"no {absent[0]}"
    if "errors" not in inspect.signature(coder.decode).parameters:
        missing |= {"replace": "decode takes no errors", "escapes": "decode takes no errors"}

    def run(findings: Findings) -> None:
        for ability in needs:
            findings.need(ability)
        body(Subject(coder, findings, level))

    return reporting(name, run, {**missing, **lacks})


def shown(data: bytes) -> str:
    """Bytes in hex, for messages."""
    return bytes(data).hex(" ") or "no bytes"
