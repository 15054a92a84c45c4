"""What was measured of several models, as one table for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bytelm.cli.console import format_table

if TYPE_CHECKING:
    from bytelm.benchmarks.generation_speed import GenerationSpeed

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class ComparedLaw:
    """One law of one model on the text. The names are those of the JSON.

    Attributes:
        model: its name.
        source: folder, as given.
        family: of its layout.
        attention: what the positions of a context see.
        tokenizer: name of its encoding or tokenizer.
        law: what was scored.
        dtype: of the weights.
        parameters: number of them.
        weight_bytes: of parameters and buffers in memory.
        model_context: symbols that it reads at most.
        nats: of all text.
        bits_per_char, bits_per_byte: per character and per UTF-8 byte.
        symbols: of all windows, each encoded on its own.
        chars_per_symbol: characters over symbols.
        positions_per_char: of the body, in all streams.
        cache_bytes_per_1000_chars: keys and values.
        operations_per_char: of plain decoding after half a window and its context.
    """

    model: str
    source: str
    family: str
    attention: str
    tokenizer: str
    law: str
    dtype: str
    parameters: int
    weight_bytes: int
    model_context: int
    nats: float
    bits_per_char: float
    bits_per_byte: float
    symbols: int
    chars_per_symbol: float
    positions_per_char: float
    cache_bytes_per_1000_chars: float
    operations_per_char: float


def format_comparison(
    setting: dict[str, Any], rows: Sequence[ComparedLaw], speeds: "Sequence[GenerationSpeed]", drafts: Sequence[str]
) -> str:
    """The table, with the setting it was measured in."""
    found = {(speed.model, speed.law, speed.draft): speed for speed in speeds}
    shown = drafts if speeds else ()
    header = ["model", "law", "symbols", "params", "type", "weights", "bits/char", "bits/byte", "chars/sym"]
    header += ["KV/1k chars", "op/char", *(f"{draft} (/fwd)" for draft in shown)]
    lines = [
        [
            row.model,
            row.law + (f", {row.attention}" if row.attention != "causal" else ""),
            row.tokenizer,
            _metric(row.parameters),
            _DTYPES.get(row.dtype, row.dtype),
            _metric(row.weight_bytes) + "B",
            f"{row.bits_per_char:.4f}",
            f"{row.bits_per_byte:.4f}",
            f"{row.chars_per_symbol:.3f}",
            _metric(row.cache_bytes_per_1000_chars) + "B",
            _metric(row.operations_per_char),
            *(_speed(found.get((row.model, row.law, draft))) for draft in shown),
        ]
        for row in rows
    ]
    table = format_table(header, lines, "lll" + "r" * (len(header) - 3))
    last = f"\n{', '.join(shown)}: characters per second, and in brackets per forward, by drafter." if shown else ""
    return f"{describe_setting(setting)}{last}\n\n{table}"


def describe_setting(setting: dict[str, Any]) -> str:
    """What the figures hold for, in words."""
    text = (
        f"{setting['characters']:,} characters ({setting['utf8_bytes']:,} UTF-8 bytes) in {setting['documents']:,}"
        f" documents; windows of {setting['window']} characters, each after the {setting['context']} before it."
    )
    if setting["prompts"]:
        threads = f", {setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"
        text += (
            f"\nSpeeds: greedy, batch 1, {setting['device']}{threads if setting['device'] == 'cpu' else ''}; prompts of"
            f" {setting['prompt_chars']} characters: {setting['prompts']}, new characters each:"
            f" {setting['max_new_chars']}, median of {setting['repeats']} in turn."
        )
    return text


def _speed(speed: "GenerationSpeed | None") -> str:
    return "–" if speed is None else f"{_rate(speed.chars_per_second)} ({speed.chars_per_forward:.2f})"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _metric(value: float) -> str:
    """Three digits and k, M, G or T."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} "
