"""Text to bytes and back: stateless, total, injective, prefix-free encodings of Unicode. Imports no torch."""

from bytelm.encoding.automaton import ILLEGAL, Automaton
from bytelm.encoding.base import CONTROL_NAMES, INVALID, Encoding, Errors, check_errors, control_names
from bytelm.encoding.convert import ESCAPES, REPLACEMENT, ByteData, as_bytes, code_points_of, scalars_to_text
from bytelm.encoding.dense import DenseEncoding
from bytelm.encoding.fit import count_characters, fit_dense, write_table
from bytelm.encoding.kernels import kernel_name
from bytelm.encoding.ranked2 import Ranked2Encoding
from bytelm.encoding.registry import encoding_from_dict, get_encoding, list_encodings, read_table, register
from bytelm.encoding.stream import StreamingDecoder
from bytelm.encoding.utf8 import Utf8Encoding
from bytelm.encoding.utf16 import Utf16Encoding
from bytelm.encoding.utf32 import Utf32Encoding

__all__ = [
    "CONTROL_NAMES",
    "ESCAPES",
    "ILLEGAL",
    "INVALID",
    "REPLACEMENT",
    "Automaton",
    "ByteData",
    "DenseEncoding",
    "Encoding",
    "Errors",
    "Ranked2Encoding",
    "StreamingDecoder",
    "Utf8Encoding",
    "Utf16Encoding",
    "Utf32Encoding",
    "as_bytes",
    "check_errors",
    "code_points_of",
    "control_names",
    "count_characters",
    "encoding_from_dict",
    "fit_dense",
    "get_encoding",
    "kernel_name",
    "list_encodings",
    "read_table",
    "register",
    "scalars_to_text",
    "write_table",
]
