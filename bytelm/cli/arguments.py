"""Arguments that several commands take, and what they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bytelm.cli import completions
from bytelm.cli.console import working
from bytelm.encoding import Encoding, get_encoding, list_encodings, read_table, register
from bytelm.errors import ConfigError, EncodingError

if TYPE_CHECKING:
    import torch

    from bytelm.hub import LanguageModel

DTYPES = completions.DTYPES
_SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
Json = Annotated[bool, typer.Option("--json", help="Write the result to standard output as one line of JSON.")]
EncodingName = Annotated[
    str,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="Name of an encoding, or path of a table (.json).",
        autocompletion=completions.encodings,
    ),
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="Files (.jsonl, .txt, .parquet, each also .gz, .xz, .zst) and folders of such files, also as URLs "
        "(s3://, gs://, hf://, https://, …); data sets: dataset://NAME?split=SPLIT.",
        show_default=False,
    ),
]
Field = Annotated[str, typer.Option("--field", metavar="NAME", help="JSON field or Parquet column of the text.")]
SplitBlankLines = Annotated[
    bool, typer.Option("--split-blank-lines", help="Blank lines separate the documents of plain text files.")
]
SkipBadLines = Annotated[bool, typer.Option("--skip-bad-lines", help="Skip and count bad lines, do not stop.")]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="Checkpoint folder, or id of a model on the hub.",
        show_default=False,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help=f"Of the weights: {', '.join(DTYPES)}. Default: as in the file.",
        autocompletion=completions.dtypes,
    ),
]
FourBit = Annotated[
    str,
    typer.Option(
        "--four-bit",
        metavar="NAME",
        help="Weights in four bits: dequantise, keep, or kernels.",
        autocompletion=completions.four_bit,
    ),
]
Int8 = Annotated[bool, typer.Option("--int8", help="Round the matrices of linear layers to int8 (torchao).")]
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="NAME", help="Branch, tag or commit of a model on the hub.")
]
Attention = Annotated[
    str | None,
    typer.Option(
        "--attention",
        metavar="NAME",
        help="causal, or prefix: prompts are read both ways. Default: as trained.",
        autocompletion=completions.attentions,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Where the model runs: cpu, cuda, cuda:1, …")]


def check_text(text: str, place: str) -> None:
    """Refuse an argument that is not Unicode: Python puts lone surrogates in place of bytes that are not UTF-8.

    Raises:
        EncodingError: names ``place``, the index, and the byte or surrogate found.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code_point = ord(text[error.start])
        byte = code_point - 0xDC00
        found = f"the byte {byte:02x}, not UTF-8" if 0x80 <= byte <= 0xFF else f"the lone surrogate U+{code_point:04X}"
        raise EncodingError(f"{place}: text index {error.start}: found {found}, expected a character") from None


def resolve_encoding(name: str) -> Encoding:
    """The encoding of this name, or the one in the table file of this path, which is then registered.

    Raises:
        EncodingError: neither an encoding nor a table; or a table with a name that another encoding has.
    """
    path = Path(name)
    if name in list_encodings() or (path.suffix != ".json" and not path.is_file()):
        return get_encoding(name)
    encoding = read_table(path)
    try:
        register(encoding)
    except EncodingError as error:
        raise EncodingError(f"{path}: {error}") from None
    return get_encoding(encoding.name)


def find_device(name: str) -> "torch.device":
    """The device of this name.

    Raises:
        ConfigError: torch cannot use it here.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(
            f"--device: found {name!r}, which torch cannot use here, expected cpu or a device of this machine"
        ) from None
    return device


def find_dtype(name: str | None) -> "torch.dtype | None":
    """The type of this name, or of its short form (``bf16``); None for None.

    Raises:
        ConfigError: none of ``DTYPES``.
    """
    import torch

    name = _SHORT_DTYPES.get(str(name), name)
    if name is not None and name not in DTYPES:
        raise ConfigError(f"--dtype: found {name!r}, expected one of {', '.join(DTYPES)}")
    return None if name is None else getattr(torch, name)


def load_model(
    source: Path,
    device: str,
    *,
    dtype: str | None = None,
    four_bit: str = "dequantise",
    draft_heads: Path | None = None,
    revision: str | None = None,
    int8: bool = False,
) -> "LanguageModel":
    """The model of a checkpoint, on a device.

    Raises:
        ConfigError: there is no such device or type; ``int8`` without torchao.
        CheckpointError: see :func:`bytelm.load`.
    """
    with working("loading the model"):
        from bytelm.hub import load

        return load(
            source,
            find_device(device),
            dtype=find_dtype(dtype),
            four_bit=four_bit,
            draft_heads=draft_heads,
            revision=revision,
            int8=int8,
        )
