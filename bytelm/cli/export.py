"""``bytelm export``: the model of a run that was interrupted."""

from pathlib import Path
from typing import Annotated

import typer

from bytelm.cli.arguments import Json
from bytelm.cli.console import working, write_error, write_result


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or one of its checkpoints.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the model, which bytelm.load reads.")],
    int8: Annotated[bool, typer.Option("--int8", help="Round matrices to int8, a scale to each row.")] = False,
    four_bit_tables: Annotated[
        bool,
        typer.Option("--four-bit-tables", help="Round rows of n-gram tables to four bits, other matrices to int8."),
    ] = False,
    json: Json = False,
) -> None:
    """Write the model of a checkpoint to a folder.

    As fit does at its end, or with --int8 in a quarter of the space, or with n-gram tables in an eighth. Of a run it is
    the last good checkpoint. Shards of many processes are put together; one process is enough for that, and memory for
    the weights.

    JSON fields: command, model, checkpoint, step.
    """
    from bytelm.training.checkpoint_io import last_good_checkpoint, verify
    from bytelm.training.export import export_checkpoint

    if (run / "checkpoints").is_dir():
        with working("comparing SHA-256"):
            checkpoint = last_good_checkpoint(run / "checkpoints", lambda line: write_error(f"warning: {line}"))
    else:
        checkpoint = run
        with working("comparing SHA-256"):
            verify(checkpoint)
    with working("writing the model"):
        step = export_checkpoint(checkpoint, out, int8=int8, four_bit_tables=four_bit_tables)
    result = {"command": "export", "model": str(out), "checkpoint": str(checkpoint), "step": step}
    write_result(result, f"{out}: the model of step {step}, from {checkpoint}", json)
