"""A byte-level BPE from text."""

import json
from collections.abc import Iterable

from bytelm.errors import ConfigError
from bytelm.tokenizer.bpe import BPETokenizer
from bytelm.tokenizer.bpe_files import BPEVocabulary
from bytelm.tokenizer.byte_level import BYTE_CHARACTERS

_FEWEST = len(BYTE_CHARACTERS) + 1


def train_bpe(texts: Iterable[str], vocab_size: int) -> BPEVocabulary:
    """The vocabulary that the package ``tokenizers`` learns: GPT-2's words, all bytes, and ``<|endoftext|>``.

    Merges are those of the most frequent pairs (Sennrich et al. 2016, arXiv:1508.07909, section 3.2), on bytes as GPT-2
    has it. It is a function of the texts alone, whatever the number of threads.

    Args:
        texts: documents; read once.
        vocab_size: tokens, bytes and the control; a short text gives fewer.
    Raises:
        ConfigError: ``vocab_size`` has no room for the bytes and the control.
    """
    if vocab_size < _FEWEST:
        raise ConfigError(f"vocab_size: found {vocab_size}, expected at least {_FEWEST}: the bytes and a control")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # on first use: not everyone needs it

    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BPETokenizer.eos_token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    coder.train_from_iterator(texts, trainer)
    learned = json.loads(coder.to_str())["model"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in learned["merges"]]
    tokens = {token: number for token, number in learned["vocab"].items() if token != BPETokenizer.eos_token}
    controls = {BPETokenizer.eos_token: learned["vocab"][BPETokenizer.eos_token]}
    return BPEVocabulary(tokens, [(left, right) for left, right in pairs], controls)
