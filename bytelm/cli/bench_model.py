"""The model that ``bytelm bench decode`` measures: one of a folder, or one of a preset's size with random weights."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import find_device, find_dtype, load_model
from bytelm.cli.console import working
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from bytelm.hub import LanguageModel
    from bytelm.tokenizer import BaseTokenizer

_PRESET_ENCODING = "dense-ja"


def open_model(folder: Path | None, preset: str | None, device: str, dtype: str) -> "LanguageModel":
    """The model in the folder, or one of the preset's size, on the device and in the type.

    Raises:
        ConfigError: both or none is given; an unknown preset, device or type.
    """
    from bytelm.hub import LanguageModel
    from bytelm.model.build import build_noise_model
    from bytelm.model.layout import lay_out_for_decoding
    from bytelm.model.presets import get_preset

    if (folder is None) == (preset is None):
        raise ConfigError(
            f"MODEL: found {'none' if folder is None else 'one and --preset'}, expected MODEL or --preset"
        )
    if folder is not None:
        lm = load_model(folder, device, dtype=dtype)
    else:
        assert preset is not None
        config, kind = get_preset(preset), find_dtype(dtype)
        assert kind is not None
        tokenizer = stand_in(config.vocab_size) if config.patch == 1 else _preset_bytes()
        with working("making random weights"):
            lm = LanguageModel(build_noise_model(config, kind, find_device(device)), tokenizer)
    lay_out_for_decoding(lm.model)
    lm.model.eval()
    return lm


def _preset_bytes() -> "BaseTokenizer[Any]":
    from bytelm.encoding import get_encoding
    from bytelm.tokenizer import Tokenizer

    return Tokenizer(get_encoding(_PRESET_ENCODING))


def stand_in(vocab_size: int) -> "BaseTokenizer[Any]":
    """A tokenizer of so many tokens for a model of tokens without a text: all bytes, pairs of them, and EOS."""
    from bytelm.tokenizer import BPETokenizer, BPEVocabulary
    from bytelm.tokenizer.byte_level import BYTE_CHARACTERS

    pairs = map("".join, itertools.product(BYTE_CHARACTERS, repeat=2))
    tokens = itertools.islice(itertools.chain(BYTE_CHARACTERS, pairs), vocab_size - 1)
    numbered = {token: number for number, token in enumerate(tokens)}
    return BPETokenizer(BPEVocabulary(numbered, [], {BPETokenizer.eos_token: vocab_size - 1}))
