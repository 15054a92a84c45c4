"""``bytelm convert``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.cli.arguments import Dtype, FourBit, Json, Model, Revision, find_dtype, load_model, resolve_encoding
from bytelm.cli.console import working, write_result
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from bytelm.hub import LanguageModel

_FORMATS = ("hf", "bytelm")

_Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)]
_To = Annotated[
    str,
    typer.Option(
        "--to", metavar="FORMAT", help="hf: a folder for transformers, with code; bytelm: our own.", show_default=False
    ),
]
_Renames = Annotated[
    Path | None,
    typer.Option(
        "--renames",
        metavar="FILE",
        help="YAML with the names of a checkpoint of bytes in LLaMA's layout: encoding, tensors, config.",
    ),
]


def convert(
    model: Model,
    out: _Out,
    to: _To,
    renames: _Renames = None,
    dtype: Dtype = None,
    four_bit: FourBit = "dequantise",
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Write a model of bytes for transformers, or back.

    With --renames MODEL is a checkpoint of other people's in LLaMA's layout, with a merger and several heads.

    JSON fields: command, model, out, to, parameters, encoding, files.
    """
    if to not in _FORMATS:
        raise ConfigError(f"--to: found {to!r}, expected {' or '.join(_FORMATS)}")
    lm = load_model(model, "cpu", dtype=dtype, four_bit=four_bit, revision=revision) if renames is None else None
    lm = lm or _renamed(model, _path(renames), dtype)
    with working("writing the model"):
        _write(out, to, lm)
    result = {
        "command": "convert",
        "model": str(model),
        "out": str(out),
        "to": to,
        "parameters": sum(parameter.numel() for parameter in lm.model.parameters()),
        "encoding": lm.tokenizer.name,
        "files": len(list(out.iterdir())),
    }
    write_result(result, f"{out}: {result['parameters']:,} parameters, {lm.tokenizer.name}, for {to}", json)


def _path(renames: Path | None) -> Path:
    assert renames is not None
    return renames


def _renamed(folder: Path, file: Path, dtype: str | None) -> "LanguageModel":
    from bytelm.hub import LanguageModel
    from bytelm.hub.byte_llama import import_byte_llama, read_renames
    from bytelm.tokenizer import Tokenizer

    renames = read_renames(file)
    if renames.encoding is None:
        raise ConfigError(f"{file}: encoding: missing, expected the name or table of the encoding of the model's bytes")
    encoding = resolve_encoding(renames.encoding)
    return LanguageModel(import_byte_llama(folder, renames, dtype=find_dtype(dtype)), Tokenizer(encoding))


def _write(out: Path, to: str, lm: "LanguageModel") -> None:
    if to == "hf":
        from bytelm.hf.export import export_transformers

        export_transformers(out, lm)
    else:
        _save(out, lm)


def _save(out: Path, lm: "LanguageModel") -> None:
    from bytelm.errors import CheckpointError
    from bytelm.hub import save_checkpoint
    from bytelm.tokenizer import Tokenizer

    if not isinstance(lm.tokenizer, Tokenizer):
        raise CheckpointError(f"found a model of tokens of the family {lm.family}, expected one of bytes")
    save_checkpoint(out, lm.model, lm.tokenizer.encoding)
