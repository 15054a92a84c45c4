"""Data sets of Hugging Face as sources: ``dataset://NAME?split=SPLIT&config=CONFIG``, streamed shard by shard.

Needs the extra ``datasets``. NAME is an id of the hub or a folder; no code of a data set is run.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from bytelm.corpus.files import DATASET, SourceFile
from bytelm.errors import CorpusError

_EXPECTED = f"expected {DATASET}NAME?split=SPLIT&config=CONFIG"


class _Address(NamedTuple):
    name: str
    split: str
    config: str | None
    shard: tuple[int, int] | None


def find_shards(url: str) -> list[SourceFile]:
    """The shards of a data set, one for each file that it is made of.

    Raises:
        CorpusError: not an address of a data set, or one of a shard.
        ImportError: the package ``datasets`` is not installed.
        Exception: what ``datasets`` raises for a name that it does not find.
    """
    address = _parse(url)
    if address.shard is not None:
        raise CorpusError(f"{url}: found a shard, {_EXPECTED}")
    builder, dataset = _load(address)
    count = dataset.num_shards
    query = f"split={address.split}" + (f"&config={address.config}" if address.config else "")
    return [
        SourceFile(
            name=f"{DATASET}{address.name}?{query}&shard={index}/{count}",
            bytes=None,
            version=f"{builder.config_id} {builder.hash}",
        )
        for index in range(count)
    ]


def iter_rows(url: str, field: str) -> Iterator[Any]:
    """The values of one column, of the rows of a shard in their order.

    Raises:
        CorpusError: the data set has no such column.
    """
    address = _parse(url)
    if address.shard is None:
        raise CorpusError(f"{url}: found no shard of a data set, expected one")
    index, count = address.shard
    _, dataset = _load(address)
    if dataset.column_names is not None:
        _check_column(url, dataset.column_names, field)
        dataset = dataset.select_columns([field])
    for row in dataset.shard(num_shards=count, index=index):
        _check_column(url, list(row), field)
        yield row[field]


def _check_column(url: str, columns: list[str], field: str) -> None:
    if field not in columns:
        found = ", ".join(map(repr, columns)) or "none"
        raise CorpusError(f"{url}: found the columns {found}, expected a string column {field!r}")


def _load(address: _Address) -> tuple[Any, Any]:
    import datasets

    builder = datasets.load_dataset_builder(address.name, address.config)
    return builder, datasets.load_dataset(address.name, address.config, split=address.split, streaming=True)


def _parse(url: str) -> _Address:
    name, _, query = url.removeprefix(DATASET).partition("?")
    try:
        given = dict(parse_qsl(query, strict_parsing=True)) if query else {}
        index, _, count = given.pop("shard", "").partition("/")
        shard = (int(index), int(count)) if index or count else None
    except ValueError as error:
        raise CorpusError(f"{url}: found {query!r} ({error}), {_EXPECTED}") from None
    unknown = given.keys() - {"split", "config"}
    if not name or unknown:
        raise CorpusError(f"{url}: found {sorted(unknown) or 'no name'}, {_EXPECTED}")
    return _Address(name, given.get("split", "train"), given.get("config"), shard)
