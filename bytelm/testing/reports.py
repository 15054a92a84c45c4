"""What a check found. Checks never raise: what goes wrong under test is a failed report."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from bytelm.testing.jobs import Capability, Decoder

Lacks = Mapping[Capability, str]
"""What a decoder lacks, with the reason that reports give for what they leave out."""

NOTHING: Lacks = MappingProxyType({})

Level = Literal["quick", "full"]
"""``quick`` takes seconds, ``full`` minutes."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Outcome of one check.

    Attributes:
        check: its name.
        outcome: ``skipped`` where what is under test lacks what the whole check needs.
        message: what was found and expected, or why it was skipped.
        figures: numbers by name: cases, p-values, distances, margins.
        left_out: parts that were left out, with the reason.
    """

    check: str
    outcome: Literal["passed", "failed", "skipped"]
    message: str = ""
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether something was wrong."""
        return self.outcome == "failed"


class Mismatch(Exception):
    """Something under test is wrong. Raised inside checks only."""


class Lacking(Exception):
    """A check cannot run. Raised inside checks only."""


class Findings:
    """What a running check notes down.

    Args:
        lacks: of what is under test, with reasons.
    """

    def __init__(self, lacks: Mapping[Any, str]) -> None:
        self.figures: dict[str, float] = {"cases": 0}
        self.left_out: list[str] = []
        self._lacks = lacks

    def has(self, capability: str) -> bool:
        """Whether what is under test has it; where not, the reason is noted."""
        if capability in self._lacks:
            self.leave_out(f"{capability}: {self._lacks[capability]}")
        return capability not in self._lacks

    def leave_out(self, reason: str) -> None:
        """Note, once, that a part cannot be checked."""
        if reason not in self.left_out:
            self.left_out.append(reason)

    def need(self, capability: str) -> None:
        """End the check where what is under test lacks it."""
        if not self.has(capability):
            raise Lacking(self.left_out[-1])

    def skip(self, reason: str) -> NoReturn:
        """End the check as one that cannot run."""
        raise Lacking(reason)

    def rows(self, decoder: Decoder) -> Decoder:
        """The decoder; one that cannot decode several rows, for each row by itself."""
        if self.has("batch"):
            return decoder
        return lambda job: [decoder(job.alone(row))[0] for row in range(len(job.prompts))]

    def require(self, condition: bool, message: str) -> None:
        """End the check as failed unless ``condition``."""
        if not condition:
            raise Mismatch(message)

    def case(self) -> None:
        """Count one more case."""
        self.figures["cases"] += 1

    def lowest(self, name: str, value: float) -> None:
        """Keep the smallest value of a figure."""
        self.figures[name] = min(value, self.figures.get(name, value))

    def highest(self, name: str, value: float) -> None:
        """Keep the largest value of a figure."""
        self.figures[name] = max(value, self.figures.get(name, value))


def reporting(name: str, body: Callable[[Findings], None], lacks: Mapping[Any, str]) -> Report:
    """Run the body of a check and say what became of it."""
    findings = Findings(lacks)
    report = functools.partial(Report, name)
    try:
        body(findings)
    except Lacking as reason:
        return report("skipped", str(reason))
    except Mismatch as mismatch:
        return report("failed", str(mismatch), findings.figures, tuple(findings.left_out))
    except Exception as error:  # noqa: BLE001 - what is under test may raise anything, and that is a finding too
        message = f"{type(error).__name__}: {error}"
        return report("failed", message, findings.figures, tuple(findings.left_out))
    return report("passed", "", findings.figures, tuple(findings.left_out))


def format_reports(reports: Sequence[Report]) -> str:
    """Reports as a table of text, a line each, and a line for what was left out."""
    width = max(len(report.check) for report in reports)
    lines = []
    for report in reports:
        figures = " ".join(f"{name}={value:.4g}" for name, value in report.figures.items())
        lines.append(f"{report.check:<{width}}  {report.outcome:<7}  {figures}  {report.message}".rstrip())
        lines += [f"{'':<{width}}  left out {reason}" for reason in report.left_out]
    return "\n".join(lines)
