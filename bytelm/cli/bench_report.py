"""What was measured of decoding, as tables for people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bytelm.cli.console import format_table

if TYPE_CHECKING:
    from bytelm.benchmarks import Bandwidth, DecodingSpeed, ForwardCost, LinearCost, RivalSpeed, Skipped, StepCost

GOALS = (
    "Goals: batch 1 on the CPU with the trained ja_small, greedy and T = 1: chain >= 3.0 and next with heads >= 1.5 "
    "times plain,\none chain forward with its four heads <= 1.25 times its body, transformers >= 2 times our time a "
    "forward; with gptj-6b in\nbfloat16: linear layers alone >= 90 % of a plain step, transformers >= 1.3 times our "
    "time a forward, int8 >= 1.6 times plain.\nOn a GPU: >= 60 % of the memory's roof for 1.3b in bfloat16, 4 "
    "positions <= 1.15 times one."
)

_ROOFS = ("memory", "cache")
_OFFSETS = 4


@dataclass(frozen=True)
class LayersReport:
    """A plain step, and the linear layers alone.

    Attributes:
        step: a greedy one at batch 1.
        linear: for some numbers of rows.
    """

    step: "StepCost"
    linear: "list[LinearCost]"


@dataclass(frozen=True)
class DecodingReport:
    """What ``bytelm bench decode`` found.

    Attributes:
        memory: bandwidth of a buffer that no cache holds.
        cache: of one with the size of the model's matrices.
        layers: a plain step beside its linear layers.
        costs: of forwards.
        speeds: of ways of decoding.
        rival: what transformers was given.
        rivals: ours and theirs, forward against forward; empty where they were not asked for.
        skipped: rivals that were not measured.
        int8: the step and its layers with weights in int8; None where it was not asked for.
    """

    memory: "Bandwidth"
    cache: "Bandwidth"
    layers: LayersReport
    costs: "list[ForwardCost]"
    speeds: "list[DecodingSpeed]"
    rival: str
    rivals: "list[RivalSpeed]"
    skipped: "list[Skipped]"
    int8: LayersReport | None

    def as_json(self) -> dict[str, Any]:
        """Plain values; what reads memory with its share of both bandwidths."""
        return {
            "memory": asdict(self.memory),
            "cache": asdict(self.cache),
            **self._layers(self.layers),
            "costs": [self._with_shares(row) for row in self.costs],
            "speeds": [self._with_shares(row) for row in self.speeds],
            "rival": self.rival,
            "rivals": [asdict(row) for row in self.rivals],
            "skipped": [asdict(row) for row in self.skipped],
            "int8": None if self.int8 is None else self._layers(self.int8),
        }

    def _layers(self, layers: LayersReport) -> dict[str, Any]:
        return {"step": self._with_shares(layers.step), "linear": [self._with_shares(row) for row in layers.linear]}

    def _with_shares(self, row: "DecodingSpeed | ForwardCost | StepCost | LinearCost") -> dict[str, Any]:
        return {
            **asdict(row),
            "memory_share": row.bytes_read_per_second / self.memory.bytes_per_second,
            "cache_share": row.bytes_read_per_second / self.cache.bytes_per_second,
        }


def format_report(setting: dict[str, Any], found: DecodingReport) -> str:
    """All of it, with the setting it was measured in, for people."""
    roofs = (found.memory, found.cache)
    memory, cache = (f"{roof.bytes_per_second / 1e9:.3g} GB/s" for roof in roofs)
    lines = [
        f"{setting['model']}, {setting['encoding']}: {setting['parameters'] / 1e6:.3g}M parameters, "
        f"{describe_mode(setting)};",
        f"prompts: {setting['prompts']}, symbols a row: {setting['max_new_tokens']}, medians over repeats in turn: "
        f"{setting['repeats']}",
        "",
        f"A buffer of {found.memory.num_bytes / 1e6:,.3g} MB (memory) is read at {memory}, one of "
        f"{found.cache.num_bytes / 1e6:,.3g} MB (cache), the size of the model's matrices, at {cache}.",
        "Shares of these: what forwards must read, the matrices once and keys and values once a stream.",
        "",
        *format_layers(found.layers, roofs),
        "",
        f"Forwards with {found.costs[0].slots} positions in the cache; times plain: over the body at one position:",
        "",
        format_costs(found.costs, roofs),
        "",
        "Decoding, prefill included; forwards/char: of a row; times plain: characters/s over next without a draft;",
        "accepted: of the drafts at offsets 1, 2, … that were judged:",
        "",
        format_speeds(found.speeds, roofs),
    ]
    if found.rivals:
        lines += [
            "",
            f"The same number of forwards, greedy, prefill included; transformers on {found.rival}:",
            "",
            format_rivals(found.rivals),
        ]
    if found.int8 is not None:
        lines += [
            "",
            f"Weights in int8, {found.int8.step.ratio:.2f} times the symbols/s of a plain step above, in turn with it.",
        ]
        lines += format_layers(found.int8, roofs)
    if found.skipped:
        lines += ["", *(f"not measured: {entry.name}: {entry.reason}" for entry in found.skipped)]
    return "\n".join([*lines, "", GOALS])


def describe_mode(setting: dict[str, Any]) -> str:
    """How the model ran, in a few words."""
    threads = "1 thread" if setting["threads"] == 1 else f"{setting['threads']} threads"
    compiled = "compiled" if setting["compile"] else "not compiled"
    return f"{setting['dtype']} on {setting['device']}, {threads}, {compiled}"


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


def format_layers(layers: LayersReport, roofs: "Sequence[Bandwidth]" = ()) -> list[str]:
    """A plain step in a line, then a table of its linear layers alone, with the share of bandwidths."""
    step = layers.step
    shares = ", ".join(
        f"{share} of {name}" for share, name in zip(_shares(step.bytes_read_per_second, roofs), _ROOFS, strict=False)
    )
    header = ["linear layers alone", "rows", "ms", "times one row", *(f"of {name}" for name in _ROOFS[: len(roofs)])]
    rows = [
        [
            f"through {cost.through}",
            str(cost.rows),
            f"{cost.seconds * 1e3:.3g}",
            f"{cost.ratio:.2f}",
            *_shares(cost.bytes_read_per_second, roofs),
        ]
        for cost in layers.linear
    ]
    return [
        f"A plain greedy step at batch 1: {step.seconds * 1e3:.3g} ms, {_figure(step.symbols_per_second)} symbols/s, "
        f"{shares}; its linear layers alone take {100 * step.linear_share:.1f} % of that:",
        "",
        format_table(header, rows, "l" + "r" * (len(header) - 1)),
    ]


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
