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
from bytelm.encoding.counting import PairCounts, balance, balance_pairs, count_characters, count_pairs
from bytelm.encoding.dense import DenseEncoding
from bytelm.encoding.fit import ASCII_ONE_BYTE, fit_dense, fit_ranked, write_table
from bytelm.encoding.order import ORDERS
from bytelm.encoding.proof import Proof, prove
from bytelm.encoding.ranked2 import Ranked2Encoding
from bytelm.encoding.registry import encoding_from_dict, get_encoding, list_encodings, read_table, register
from bytelm.encoding.statistics import CodeStatistics, code_statistics
from bytelm.encoding.utf8 import Utf8Encoding
from bytelm.encoding.utf16 import Utf16Encoding
from bytelm.encoding.utf32 import Utf32Encoding

__all__ = [
    "ASCII_ONE_BYTE",
    "CONTROL_NAMES",
    "INVALID",
    "ORDERS",
    "REPLACEMENT",
    "ByteData",
    "CodeStatistics",
    "DenseEncoding",
    "Encoding",
    "PairCounts",
    "Proof",
    "Ranked2Encoding",
    "Utf8Encoding",
    "Utf16Encoding",
    "Utf32Encoding",
    "as_bytes",
    "balance",
    "balance_pairs",
    "check_errors",
    "code_statistics",
    "count_characters",
    "count_pairs",
    "encoding_from_dict",
    "fit_dense",
    "fit_ranked",
    "get_encoding",
    "list_encodings",
    "prove",
    "read_table",
    "register",
    "scalars_to_text",
    "write_table",
]
