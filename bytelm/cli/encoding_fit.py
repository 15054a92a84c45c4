"""``bytelm encoding fit``."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from bytelm.cli.arguments import Field, Json, SkipBadLines, SplitBlankLines
from bytelm.cli.console import format_table, working, write_result
from bytelm.cli.sources import BadLineCounter, default_workers, source_bar
from bytelm.corpus import GroupCounts, GroupSource, count_groups, weigh
from bytelm.corpus.readers import refuse_bad_line
from bytelm.encoding import (
    Encoding,
    code_statistics,
    fit_dense,
    fit_ranked,
    get_encoding,
    write_table,
)
from bytelm.errors import EncodingError


class Family(StrEnum):
    """The families that can be fitted."""

    dense = "dense"
    ranked = "ranked"


class Order(StrEnum):
    """``bytelm.encoding.ORDERS`` as choices."""

    rank = "rank"
    codepoint = "codepoint"
    script = "script"
    spread = "spread"
    context = "context"


Corpora = Annotated[
    list[str],
    typer.Argument(
        metavar="CORPUS...",
        help="[NAME=]PATH[@train|@test]: a file (.jsonl, .txt, .parquet, each also .gz, .xz, .zst) or a folder "
        "of such files, the name of its group, and the side of the fixed split to read.",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Option("--name", help="Name of the new encoding.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", metavar="FILE.json", help="Table to write.", show_default=False)]
Kind = Annotated[Family, typer.Option("--family", help="Words of 1 to 4 bytes, or of 2 and 4.")]
Controls = Annotated[int, typer.Option("--controls", metavar="N", help="Control words that no text uses, 3 to 64.")]
Arrangement = Annotated[Order, typer.Option("--order", help="Arrangement of characters whose words are equally long.")]
Group = Annotated[
    str | None, typer.Option("--group", metavar="FIELD", help="JSON field that names a document's group.")
]
Balance = Annotated[bool, typer.Option("--balance", help="Every group weighs the same, however much text it has.")]
MinCount = Annotated[
    int, typer.Option("--min-count", metavar="N", help="Characters seen less often are ranked by rule.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", help="Processes that count; 0 counts in this one. By default as many as help."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace FILE.json where it exists.")]


def fit(
    corpora: Corpora,
    name: Name,
    out: Out,
    family: Kind = Family.dense,
    controls: Controls = 8,
    order: Arrangement = Order.rank,
    group: Group = None,
    balance: Balance = False,
    min_count: MinCount = 2,
    workers: Workers = None,
    field: Field = "text",
    split_blank_lines: SplitBlankLines = False,
    skip_bad_lines: SkipBadLines = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fit an encoding to text: the code of its family that needs the fewest bytes for it.

    The table is then used by its path: --encoding FILE.json, or encoding: FILE.json in the model section of a
    training configuration. In a dense code the printable ASCII characters, newline and tab have one byte each,
    however rare. It does not depend on the number of workers.

    The numbers are for the counts that the code was fitted to, so with --balance every group has an equal part in them.
    Gaps are fractions: 0.03 is 3 %.

    JSON fields: command, out, family, name, digest, order, s, c, controls, ranked, documents, characters, bad_lines,
    bytes_per_character, shares, huffman_bytes_per_character, huffman_gap, entropy_bytes_per_character, entropy_gap,
    groups (of each: name, documents, characters, bytes_per_character, utf8_bytes_per_character).
    """
    _check_out(out, overwrite)
    sources = [GroupSource.parse(corpus) for corpus in corpora]
    bad_lines = BadLineCounter()
    with source_bar("counting characters") as update:
        groups = count_groups(
            sources,
            by=group,
            field=field,
            split_blank_lines=split_blank_lines,
            on_bad_line=bad_lines if skip_bad_lines else refuse_bad_line,
            pairs=order is Order.context,
            workers=default_workers([source.path for source in sources]) if workers is None else workers,
            progress=update,
        )
    with working("fitting"):
        fitted, counts = _fit(groups, name, family, balance, min_count, controls, order)
    write_table(fitted, out)
    result = {
        "command": "encoding fit",
        "out": str(out),
        "order": str(order),
        **_identity(fitted),
        **_statistics(fitted, counts),
        **_sizes(fitted, groups),
        "bad_lines": bad_lines.number,
    }
    write_result(result, _describe(result), json)


def _check_out(out: Path, overwrite: bool) -> None:
    if out.suffix != ".json":
        raise EncodingError(f"{out}: found the ending {out.suffix!r}, expected .json")
    if out.exists() and not overwrite:
        raise EncodingError(f"{out}: found a file, expected none (or --overwrite)")


def _fit(
    groups: Sequence[GroupCounts], name: str, family: Family, balance: bool, min_count: int, controls: int, order: Order
) -> tuple[Encoding, NDArray[np.int64]]:
    """The encoding, and the counts that it was fitted to."""
    counts, pairs = weigh(groups, equal=balance)
    seen, _ = weigh(groups, equal=False)
    fit_family = fit_dense if family is Family.dense else fit_ranked
    fitted = fit_family(
        counts, name, min_count=min_count, num_controls=controls, order=str(order), pairs=pairs, seen=seen
    )
    return fitted, counts


def _identity(fitted: Encoding) -> dict[str, Any]:
    table = fitted.to_dict()
    return {
        "family": fitted.family,
        "name": fitted.name,
        "digest": fitted.digest,
        "s": table.get("s"),
        "c": table.get("c"),
        "controls": len(fitted.controls),
        "ranked": len("".join(table["ranked"])),
    }


def _statistics(fitted: Encoding, counts: NDArray[np.int64]) -> dict[str, Any]:
    found = code_statistics(fitted, counts)
    return {
        "bytes_per_character": found.bytes_per_character,
        "shares": {str(length): share for length, share in enumerate(found.shares, 1)},
        "huffman_bytes_per_character": found.huffman,
        "huffman_gap": found.huffman_gap,
        "entropy_bytes_per_character": found.entropy,
        "entropy_gap": found.entropy_gap,
    }


def _sizes(fitted: Encoding, groups: Sequence[GroupCounts]) -> dict[str, Any]:
    return {
        "documents": sum(group.documents for group in groups),
        "characters": sum(group.characters for group in groups),
        "groups": [_of_group(fitted, group) for group in groups],
    }


def _of_group(fitted: Encoding, group: GroupCounts) -> dict[str, Any]:
    some = group.characters > 0
    return {
        "name": group.name,
        "documents": group.documents,
        "characters": group.characters,
        "bytes_per_character": fitted.bytes_per_character(group.counts) if some else None,
        "utf8_bytes_per_character": get_encoding("utf8").bytes_per_character(group.counts) if some else None,
    }


def _describe(result: dict[str, Any]) -> str:
    shape = f"(s, c) = ({result['s']}, {result['c']}), " if result["s"] is not None else ""
    shares = [(f"share of {length}-byte words", f"{share:.3%}") for length, share in result["shares"].items()]
    facts = [
        ("bytes/char", f"{result['bytes_per_character']:.4f}"),
        *shares,
        ("Huffman code of bytes, bytes/char", f"{result['huffman_bytes_per_character']:.4f}"),
        ("  above it", f"{result['huffman_gap']:.2%}"),
        ("entropy, bytes/char", f"{result['entropy_bytes_per_character']:.4f}"),
        ("  above it", f"{result['entropy_gap']:.2%}"),
    ]
    rows = [
        (
            group["name"],
            str(group["documents"]),
            str(group["characters"]),
            *(_ratio(group[field]) for field in ("bytes_per_character", "utf8_bytes_per_character")),
        )
        for group in result["groups"]
    ]
    return (
        f"{result['out']}: {result['name']}, digest {result['digest'][:12]}: {result['family']}, {shape}"
        f"{result['controls']} controls, {result['ranked']} ranked characters, order {result['order']}, fitted to "
        f"{result['characters']} characters of {result['documents']} documents\n"
        + format_table(("", ""), facts, "lr").lstrip()
        + "\n\n"
        + format_table(("group", "documents", "characters", "bytes/char", "UTF-8"), rows, "lrrrr")
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
