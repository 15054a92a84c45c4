"""``bytelm plan``."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bytelm.cli.arguments import Json
from bytelm.cli.console import format_table, working, write_result
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from bytelm.benchmarks.accelerators import Accelerator
    from bytelm.benchmarks.training_plan import PlannedLayout, TrainingOperations, Workload
    from bytelm.cli.plan_settings import PlannedText

_Config = Annotated[
    list[Path], typer.Option("--config", metavar="FILE", help="As for bytelm fit; may be repeated.", show_default=False)
]
_Gpus = Annotated[
    int | None, typer.Option("--gpus", metavar="N", min=1, help="That share a step. Default: as configured, or 1.")
]
_Gpu = Annotated[str, typer.Option("--gpu", metavar="NAME", help="a100, h100, h200, b200, l40s, rtx4090, …")]
_Memory = Annotated[
    float | None, typer.Option("--memory", metavar="GB", min=0, help="Of a GPU, instead of its data sheet's.")
]
_Tflops = Annotated[
    float | None, typer.Option("--tflops", metavar="N", min=0, help="Dense bf16 rate, instead of its data sheet's.")
]
_Mfu = Annotated[
    float, typer.Option("--mfu", metavar="SHARE", min=0.001, max=1, help="Of the rate, where nothing is recomputed.")
]
_CharsPerByte = Annotated[
    float | None,
    typer.Option("--chars-per-byte", metavar="N", help="Of the text. Default: of data.train, or an assumption."),
]
PLAN: Mapping[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
    "options_metavar": "[OPTIONS] [OPTIONS OF FIT]",
}
"""Settings of the command: options that it does not know are those of ``bytelm fit``."""


def plan(
    context: typer.Context,
    config: _Config,
    gpus: _Gpus = None,
    gpu: _Gpu = "h100",
    memory: _Memory = None,
    tflops: _Tflops = None,
    mfu: _Mfu = 0.4,
    chars_per_byte: _CharsPerByte = None,
    json: Json = False,
) -> None:
    """What a training run needs, before it is started.

    From the configuration alone: parameters, operations per character, memory of each GPU, hours at a stated share of
    the GPU's rate, characters and epochs. Where the configuration names its devices, the windows of a step stay what
    they are there, and another number of GPUs changes accumulate_grad_batches.

    JSON fields: command, config, parameters, body_parameters, precision, encoding, window, batch_size, gpus, gpu,
    gpu_memory_bytes, gpu_flops, mfu, accumulate_grad_batches, steps, windows_per_step, bytes_per_step, bytes,
    characters, chars_per_byte, chars_per_byte_of, epochs, flops_per_char, recomputed_flops_per_char,
    activation_checkpointing, layouts (of each: layout, checkpointing, fits, moment, memory_bytes, weights_bytes,
    gathered_bytes, gradients_bytes, moments_bytes, buckets_bytes, casts_bytes, activations_bytes, step_s, hours,
    least_update_s).
    """
    with working("planning"):
        from bytelm.benchmarks.training_plan import plan_layouts, training_operations
        from bytelm.cli.lightning import read_settings
        from bytelm.cli.plan_settings import read_text, read_workload

        settings = read_settings([*(part for path in config for part in ("--config", str(path))), *context.args])
        workload = read_workload(settings, gpus)
        accelerator = _accelerator(gpu, memory, tflops)
        text = read_text(settings, chars_per_byte)
        operations = training_operations(workload.model, workload.window)
        layouts = plan_layouts(workload, accelerator, mfu)
    result = {
        "command": "plan",
        "config": [str(path) for path in config],
        "encoding": settings["model"]["encoding"],
        "activation_checkpointing": settings["model"]["activation_checkpointing"],
        **_figures(workload, text, operations),
        **{"gpu": accelerator.name, "gpu_memory_bytes": accelerator.memory_bytes, "gpu_flops": accelerator.flops},
        "mfu": mfu,
        "layouts": [_layout(each) for each in layouts],
    }
    write_result(result, "" if json else _describe(result), json)


def _accelerator(name: str, gigabytes: float | None, teraflops: float | None) -> "Accelerator":
    """The GPU of this name, with what is stated in the place of its data sheet's figures."""
    from bytelm.benchmarks.accelerators import get_accelerator

    for option, value in (("--memory", gigabytes), ("--tflops", teraflops)):
        if value is not None and not value > 0:
            raise ConfigError(f"{option}: found {value}, expected a number > 0")
    try:
        found = get_accelerator(name)
    except ConfigError as error:
        raise ConfigError(f"--gpu: {error}") from None
    if gigabytes is not None:
        found = dataclasses.replace(found, memory_bytes=gigabytes * 1e9)
    return found if teraflops is None else dataclasses.replace(found, flops=teraflops * 1e12)


def _figures(workload: "Workload", text: "PlannedText", operations: "TrainingOperations") -> dict[str, Any]:
    """What does not depend on the GPU."""
    return {
        "parameters": workload.model.num_parameters(),
        "body_parameters": workload.model.num_body_parameters(),
        "precision": workload.precision,
        "window": workload.window,
        "batch_size": workload.batch_size,
        "gpus": workload.num_gpus,
        "accumulate_grad_batches": workload.accumulate,
        "steps": workload.steps,
        "windows_per_step": workload.windows_per_step,
        "bytes_per_step": workload.symbols_per_step,
        "bytes": workload.symbols,
        "characters": workload.symbols * text.chars_per_byte,
        "chars_per_byte": text.chars_per_byte,
        "chars_per_byte_of": text.source,
        "epochs": None if text.corpus_bytes is None else workload.symbols / text.corpus_bytes,
        "flops_per_char": operations.learning / text.chars_per_byte,
        "recomputed_flops_per_char": operations.recomputed / text.chars_per_byte,
    }


def _layout(planned: "PlannedLayout") -> dict[str, Any]:
    parts = dataclasses.asdict(planned.memory)
    moment = parts.pop("moment")
    return {
        "layout": planned.layout,
        "checkpointing": planned.checkpointing,
        "fits": planned.fits,
        "moment": moment,
        "memory_bytes": planned.memory.total,
        **{f"{name}_bytes": size for name, size in parts.items()},
        "step_s": planned.step_s,
        "hours": planned.hours,
        "least_update_s": planned.update_s,
    }


_PARTS = ("weights", "gathered", "gradients", "moments", "buckets", "casts", "activations")


def _describe(result: Mapping[str, Any]) -> str:
    """The plan for people: the run, then each way to lay it out."""
    epochs = "unknown: data.train is not there" if result["epochs"] is None else f"{result['epochs']:.3g}"
    step = f"{result['windows_per_step']:,} windows of {result['window']:,} = {result['bytes_per_step']:,} bytes"
    at_once = f"{result['batch_size']} on each GPU, accumulate_grad_batches {result['accumulate_grad_batches']}"
    recomputed = f"checkpointing adds {result['recomputed_flops_per_char']:.4g}"
    gpu = f"{result['gpu']}, {result['gpu_memory_bytes'] / 1e9:g} GB, {result['gpu_flops'] / 1e12:g} TFLOP/s"
    checkpointing = str(result["activation_checkpointing"]).lower()
    facts = (
        ("parameters", f"{result['parameters']:,} ({result['body_parameters']:,} in the body)"),
        ("a step", step),
        ("at a time", at_once),
        ("the run", f"{result['steps']:,} steps, {result['bytes']:,} bytes, {result['characters']:.4g} characters"),
        ("characters per byte", f"{result['chars_per_byte']:.4f} ({result['chars_per_byte_of']})"),
        ("epochs", epochs),
        ("operations per character", f"{result['flops_per_char']:.4g}; {recomputed}"),
        ("GPUs", f"{result['gpus']} x {gpu}, MFU {result['mfu']:g}"),
        ("configured", f"precision {result['precision']}, activation_checkpointing {checkpointing}"),
    )
    lines = format_table(("", ""), facts, "ll").splitlines()[1:]
    header = ("GB per GPU", "checkpointing", "fits", "total", "at", *_PARTS, "s/step", "hours")
    rows = [_row(each) for each in result["layouts"]]
    return "\n".join([*lines, "", format_table(header, rows, "lllrl" + "r" * (len(_PARTS) + 2))])


def _row(layout: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = [f"{layout[f'{part}_bytes'] / 1e9:.1f}" for part in _PARTS]
    return (
        layout["layout"],
        "yes" if layout["checkpointing"] else "no",
        "yes" if layout["fits"] else "no",
        f"{layout['memory_bytes'] / 1e9:.1f}",
        layout["moment"],
        *sizes,
        f"{layout['step_s']:.3g}",
        f"{layout['hours']:.4g}",
    )
