"""What was measured of decoding, as tables for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bytelm.cli.console import format_table

if TYPE_CHECKING:
    from bytelm.benchmarks import Bandwidth, DecodingSpeed, ForwardCost, RivalSpeed

GOALS = (
    "Goals: batch 1 on the CPU with the trained ja_small, greedy and T = 1: chain >= 3.0 and next with heads >= 1.5 "
    "times plain,\none chain forward with its four heads <= 1.25 times its body, transformers >= 2 times our time a "
    "forward. On a GPU: >= 60 % of\nthe memory's roof for 1.3b in bfloat16, 4 positions <= 1.15 times one."
)

_ROOFS = ("memory", "cache")
_OFFSETS = 4


def format_speeds(speeds: "Sequence[DecodingSpeed]", roofs: "Sequence[Bandwidth]" = ()) -> str:
    """A table of ways of decoding; with the share of the bandwidths of memory and cache, where they are given."""
    header = ["T", "batch", "law", "draft", "chars/s", "UTF-8 bytes/s", "symbols/s", "forwards/char", "ms/forward"]
    header += [f"of {name}" for name in _ROOFS[: len(roofs)]]
    header += ["times plain", "accepted"]
    rows = []
    for speed in speeds:
        row = [f"{speed.temperature:g}", str(speed.batch), speed.law, speed.draft]
        row += [_figure(speed.chars_per_second), _figure(speed.utf8_bytes_per_second)]
        row += [_figure(speed.symbols_per_second), f"{speed.forwards_per_char:.3f}"]
        row += [f"{speed.seconds_per_forward * 1e3:.3g}", *_shares(speed.bytes_read_per_second, roofs)]
        accepted = " ".join(f"{share:.2f}" for share in speed.acceptance_at[:_OFFSETS])
        rows.append([*row, f"{speed.ratio:.2f}", accepted + (" …" if len(speed.acceptance_at) > _OFFSETS else "")])
    return format_table(header, rows, "rrll" + "r" * (len(header) - 5) + "l")


def format_costs(costs: "Sequence[ForwardCost]", roofs: "Sequence[Bandwidth]" = ()) -> str:
    """A table of forwards, with the share of the bandwidths of memory and cache, where they are given."""
    header = ["law", "", "positions", "heads", "ms", "times plain", *(f"of {name}" for name in _ROOFS[: len(roofs)])]
    rows = [
        [
            cost.law,
            "compiled" if cost.compiled else "",
            str(cost.positions),
            str(cost.heads),
            f"{cost.seconds * 1e3:.3g}",
            f"{cost.ratio:.2f}",
            *_shares(cost.bytes_read_per_second, roofs),
        ]
        for cost in costs
    ]
    return format_table(header, rows, "ll" + "r" * (len(header) - 2))


def format_rivals(rivals: "Sequence[RivalSpeed]") -> str:
    """A table of ours and theirs, forward against forward."""
    laws = list(rivals[0].ratios)
    header = ["", "batch", "forwards", "ms/forward", "symbols/s", *(f"time/{law}" for law in laws)]
    rows = [
        [
            rival.name,
            str(rival.batch),
            str(rival.forwards),
            f"{rival.seconds_per_forward * 1e3:.3g}",
            _figure(rival.symbols_per_second),
            *(f"{rival.ratios[law]:.2f}" for law in laws),
        ]
        for rival in rivals
    ]
    return format_table(header, rows, "l" + "r" * (len(header) - 1))


def _shares(bytes_per_second: float, roofs: "Sequence[Bandwidth]") -> list[str]:
    return [f"{100 * bytes_per_second / roof.bytes_per_second:.1f} %" for roof in roofs]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
