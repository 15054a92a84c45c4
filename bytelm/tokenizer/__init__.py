"""Text to ids and back, with controls and padded batches: byte ids, and those of a byte-level BPE. Imports no torch."""

from bytelm.tokenizer.base import BaseTokenizer, TextAutomaton, TextDecoder
from bytelm.tokenizer.batch import Batch
from bytelm.tokenizer.bpe import BPEDecoder, BPETokenizer
from bytelm.tokenizer.bpe_files import BPEVocabulary
from bytelm.tokenizer.token_automaton import TokenAutomaton
from bytelm.tokenizer.tokenizer import ByteDecoder, Tokenizer

__all__ = [
    "BPEDecoder",
    "BPETokenizer",
    "BPEVocabulary",
    "BaseTokenizer",
    "Batch",
    "ByteDecoder",
    "TextAutomaton",
    "TextDecoder",
    "TokenAutomaton",
    "Tokenizer",
]
