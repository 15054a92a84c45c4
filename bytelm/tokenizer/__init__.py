"""Text to byte ids and back, with controls and padded batches. Imports no torch."""

from bytelm.tokenizer.batch import Batch
from bytelm.tokenizer.tokenizer import Tokenizer

__all__ = ["Batch", "Tokenizer"]
