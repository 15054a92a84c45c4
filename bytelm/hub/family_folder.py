"""A folder of another family's checkpoint: ``config.json``, weights, and the files of its tokenizer."""

import dataclasses
from pathlib import Path

import torch

from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.families import Family, recognise
from bytelm.hub.four_bit_format import FourBitTensors
from bytelm.hub.import_weights import import_model
from bytelm.hub.json_files import read_config
from bytelm.hub.weights import open_weights
from bytelm.model.byte_lm import ByteLM
from bytelm.model.layout import lay_out_for_decoding
from bytelm.nn.four_bit import FourBitLinear, KernelFourBitLinear, bitsandbytes
from bytelm.tokenizer import BPETokenizer

_LAYERS = {"dequantise": None, "keep": FourBitLinear, "kernels": KernelFourBitLinear}


@dataclasses.dataclass(frozen=True)
class FamilyCheckpoint:
    """What a folder holds.

    Attributes:
        model: in our modules, in evaluation mode.
        family: whose layout the folder has.
        tokenizer: of the folder.
    """

    model: ByteLM
    family: Family
    tokenizer: BPETokenizer


def load_family(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    four_bit: str = "dequantise",
) -> FamilyCheckpoint:
    """Read a checkpoint of GPT-J, GPT-JT, GPT-JX, BTLM, GPT-2, or of LLaMA's layout with a GPT-2 BPE.

    The law is one over the ids that have a token.

    Args:
        folder: with ``config.json``, safetensors or ``.bin`` files, and ``tokenizer.json`` or ``vocab.json`` and
            ``merges.txt``.
        dtype: of the weights; default that of the embedding in the file.
        device: where they go.
        four_bit: what becomes of weights that bitsandbytes wrote in four bits. ``dequantise``: plain weights, the
            fastest on a CPU. ``keep``: linear layers of the body stay in four bits, about 0.28 of the memory of
            bfloat16, and are dequantised in every call, one at a time. ``kernels``: they stay so too, and bitsandbytes
            multiplies. Embedding and head are plain always.
    Raises:
        CheckpointError: a file is missing, damaged or of another kind; the message names it.
        ConfigError: an unknown ``four_bit``, or ``kernels`` without bitsandbytes.
    """
    if four_bit not in _LAYERS:
        raise ConfigError(f"four_bit: found {four_bit!r}, expected one of {', '.join(_LAYERS)}")
    if four_bit == "kernels":
        bitsandbytes()
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected one with config.json and weights")
    config, tensors = read_config(folder), FourBitTensors(open_weights(folder))
    try:
        recognise(config, tensors.names)  # before the tokenizer, which another family may not have
        if four_bit != "dequantise" and not tensors.four_bit:
            raise CheckpointError(f"{folder}: no weight is in four bits, expected some for four_bit={four_bit!r}")
        tokenizer = BPETokenizer.from_folder(folder)
        imported = import_model(
            config,
            tensors,
            vocab_size=tokenizer.vocab_size,
            dtype=dtype,
            device=device,
            four_bit=_LAYERS[four_bit],
            lay_out=lay_out_for_decoding,
        )
    except CheckpointError as error:
        raise CheckpointError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from error
    return FamilyCheckpoint(imported.model, imported.family, tokenizer)
