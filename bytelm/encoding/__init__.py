"""Text to bytes and back: stateless, total, injective, prefix-free encodings of Unicode. Imports no torch."""

from bytelm.encoding.automaton import ILLEGAL, Automaton
from bytelm.encoding.base import CONTROL_NAMES, INVALID, Encoding, Errors, check_errors, control_names
from bytelm.encoding.convert import ESCAPES, REPLACEMENT, ByteData, as_bytes, code_points_of, scalars_to_text
from bytelm.encoding.counting import PairCounts, balance, balance_pairs, count_characters, count_pairs
from bytelm.encoding.dense import DenseEncoding
from bytelm.encoding.fit import ASCII_ONE_BYTE, fit_dense, fit_ranked, write_table
from bytelm.encoding.kernels import kernel_name
from bytelm.encoding.order import ORDERS
from bytelm.encoding.pattern import control_start, pattern_automaton, valid_text_automaton
from bytelm.encoding.proof import Proof, prove
from bytelm.encoding.ranked2 import Ranked2Encoding
from bytelm.encoding.registry import encoding_from_dict, get_encoding, list_encodings, read_table, register
from bytelm.encoding.statistics import CodeStatistics, code_statistics
from bytelm.encoding.stream import StreamingDecoder
from bytelm.encoding.utf8 import Utf8Encoding
from bytelm.encoding.utf16 import Utf16Encoding
from bytelm.encoding.utf32 import Utf32Encoding
from bytelm.encoding.view import EncodingView

__all__ = [
    "ASCII_ONE_BYTE",
    "CONTROL_NAMES",
    "ESCAPES",
    "ILLEGAL",
    "INVALID",
    "ORDERS",
    "REPLACEMENT",
    "Automaton",
    "ByteData",
    "CodeStatistics",
    "DenseEncoding",
    "Encoding",
    "EncodingView",
    "Errors",
    "PairCounts",
    "Proof",
    "Ranked2Encoding",
    "StreamingDecoder",
    "Utf8Encoding",
    "Utf16Encoding",
    "Utf32Encoding",
    "as_bytes",
    "balance",
    "balance_pairs",
    "check_errors",
    "code_points_of",
    "code_statistics",
    "control_names",
    "control_start",
    "count_characters",
    "count_pairs",
    "encoding_from_dict",
    "fit_dense",
    "fit_ranked",
    "get_encoding",
    "kernel_name",
    "list_encodings",
    "pattern_automaton",
    "prove",
    "read_table",
    "register",
    "scalars_to_text",
    "valid_text_automaton",
    "write_table",
]
