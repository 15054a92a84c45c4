"""What was measured of training, as a table for people."""

from collections.abc import Mapping
from typing import Any

from bytelm.cli.console import format_table

GOALS = (
    "Goals: on the CPU, ja_small in bf16-mixed: >= 1.2 times the positions/s of transformers; base: >= 55 % of the "
    "bfloat16 rate. On one GPU in bf16-mixed, compiled: 1.3b >= 45 %, base >= 35 %. Waiting for data: < 2 %. "
    "3 x 2^20 rows of n-gram tables: a step < 1.1 times as long as without."
)


def format_report(result: Mapping[str, Any]) -> str:
    """The setting, a table for each precision, and what was not measured."""
    threads = "1 thread" if result["threads"] == 1 else f"{result['threads']} threads"
    windows = f"{result['batch_size']} windows of {result['window']} symbols"
    lines = [
        f"{', '.join(result['config'])}: steps of {result['positions']:,} positions of the body ({windows}, "
        f"accumulate_grad_batches {result['accumulate_grad_batches']}),",
        f"{result['device']}, {threads}; {result['repeats']} turns of {result['steps']} steps, medians; text: "
        f"{', '.join(dict.fromkeys(result['text'].values()))}",
        f"transformers, litgpt: Llamas with the same body on as many random tokens, a vocabulary of "
        f"{result['rival_vocab']:,}, the same optimiser",
        "",
    ]
    for precision, rate in result["rates"].items():
        products = f"matrix products in {rate['dtype']}: {rate['flops'] / 1e9:,.3g} GFLOP/s"
        if rate["dtype"] != "float32":
            products += f", in float32: {rate['float32'] / 1e9:,.3g}"
        speeds = [speed for speed in result["speeds"] if speed["precision"] == precision]
        lines += [f"{precision}; {products}", "", _table(speeds, rate["dtype"]), ""]
    lines += [f"not measured: {entry['name']}: {entry['reason']}" for entry in result["skipped"]]
    return "\n".join([*lines, result["goals"]])


def _table(speeds: list[Mapping[str, Any]], dtype: str) -> str:
    rates = [dtype] if dtype == "float32" else [dtype, "float32"]
    header = ["", "", "parameters", "GFLOP/step", "ms/step", "CPU ms", "positions/s", "chars/s"]
    header += [*(f"of {rate} rate" for rate in rates), "waiting", "peak MB", "time / bytelm", "CPU time / bytelm"]
    rows = []
    for speed in speeds:
        shares = [speed["mfu"]] if dtype == "float32" else [speed["mfu"], speed["mfu_float32"]]
        rows.append(
            [
                speed["name"],
                "compiled" if speed["compiled"] else "",
                f"{speed['parameters'] / 1e6:,.4g}M",
                f"{speed['operations'] / 1e9:,.4g}",
                f"{speed['step_s'] * 1e3:,.4g}",
                f"{speed['cpu_s'] * 1e3:,.4g}",
                f"{speed['positions_per_s']:,.0f}",
                "" if speed["chars_per_s"] is None else f"{speed['chars_per_s']:,.0f}",
                *(f"{100 * share:.1f} %" for share in shares),
                "" if speed["chars_per_s"] is None else f"{100 * speed['data_share']:.2f} %",
                "" if speed["peak_bytes"] is None else f"{speed['peak_bytes'] / 1e6:,.0f}",
                f"{speed['ratio']:.2f}",
                f"{speed['cpu_ratio']:.2f}",
            ]
        )
    return format_table(header, rows, "ll" + "r" * (len(header) - 2))
