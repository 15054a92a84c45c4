"""Text to ids and back, with controls and padded batches: byte ids, and those of a byte-level BPE. Imports no torch."""

from bytelm.tokenizer.base import BOS_PATCH_BYTES, BaseTokenizer, TextAutomaton, TextDecoder
from bytelm.tokenizer.batch import Batch
from bytelm.tokenizer.bpe import BPEDecoder, BPETokenizer
from bytelm.tokenizer.bpe_files import BPEVocabulary, vocabulary_to_dict
from bytelm.tokenizer.bpe_training import train_bpe
from bytelm.tokenizer.token_automaton import TokenAutomaton
from bytelm.tokenizer.tokenizer import ByteDecoder, Tokenizer

__all__ = [
    "BOS_PATCH_BYTES",
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
    "train_bpe",
    "vocabulary_to_dict",
]
