"""Text to bytes and back: stateless, total, injective, prefix-free encodings of Unicode. Imports no torch."""

from bytelm.encoding.base import (
    CONTROL_NAMES,
    INVALID,
    REPLACEMENT,
    ByteData,
    Encoding,
    as_bytes,
    check_errors,
    scalars_to_text,
)
from bytelm.encoding.dense import DenseEncoding
from bytelm.encoding.fit import count_characters, fit_dense, write_table
from bytelm.encoding.ranked2 import Ranked2Encoding
from bytelm.encoding.registry import encoding_from_dict, get_encoding, list_encodings, read_table, register
from bytelm.encoding.utf8 import Utf8Encoding
from bytelm.encoding.utf16 import Utf16Encoding
from bytelm.encoding.utf32 import Utf32Encoding

__all__ = [
    "CONTROL_NAMES",
    "INVALID",
    "REPLACEMENT",
    "ByteData",
    "DenseEncoding",
    "Encoding",
    "Ranked2Encoding",
    "Utf8Encoding",
    "Utf16Encoding",
    "Utf32Encoding",
    "as_bytes",
    "check_errors",
    "count_characters",
    "encoding_from_dict",
    "fit_dense",
    "get_encoding",
    "list_encodings",
    "read_table",
    "register",
    "scalars_to_text",
    "write_table",
]
