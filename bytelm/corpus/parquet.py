"""Rows of one string column of a Parquet file. Apart from the other readers because pyarrow is slow to import."""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from bytelm.errors import CorpusError

_ROWS_PER_BATCH = 64
_BUFFER_BYTES = 1 << 20


def iter_rows(file: io.BufferedIOBase, source: object, field: str) -> Iterator[tuple[bytes | None, float]]:
    """Each row of a column as bytes (Arrow does not check that strings are UTF-8) or None for null, and the part of
    all rows that were read with it. A few rows are held in memory at a time.

    Args:
        file: seekable.
        source: named in errors.
        field: name of the column.
    Raises:
        CorpusError: not a Parquet file, a truncated or altered one, or one without a string column of that name.
    """
    try:
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        value_type = _check_column(parquet.schema_arrow, source, field)
        num_rows, row = parquet.metadata.num_rows, 0
        for batch in parquet.iter_batches(batch_size=_ROWS_PER_BATCH, columns=[field]):
            for value in batch.column(0).cast(value_type).cast(pa.large_binary()).to_pylist():
                row += 1
                yield value, row / num_rows
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise CorpusError(f"{source}: found a truncated or altered Parquet file ({message})") from None


def _check_column(schema: pa.Schema, source: object, field: str) -> pa.DataType:
    """The type of the column's values, behind a dictionary or not."""
    if field not in schema.names:
        columns = ", ".join(map(repr, schema.names)) or "none"
        raise CorpusError(f"{source}: found the columns {columns}, expected a string column {field!r}")
    kind = schema.field(field).type
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value_type) or pa.types.is_large_string(value_type)):
        raise CorpusError(f"{source}: column {field!r}: found the type {kind}, expected string")
    return value_type
