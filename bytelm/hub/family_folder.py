"""A folder of another family's checkpoint: ``config.json``, weights, and the files of its tokenizer."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from bytelm.errors import CheckpointError
from bytelm.hub.families import Family, recognise
from bytelm.hub.four_bit_format import four_bit_names, read_four_bit
from bytelm.hub.import_weights import Tensors, import_model
from bytelm.hub.json_files import read_config
from bytelm.hub.weights import Weights, open_weights
from bytelm.model.byte_lm import ByteLM
from bytelm.model.layout import lay_out_for_decoding
from bytelm.nn.four_bit import FourBitWeight
from bytelm.tokenizer import BPETokenizer


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
    folder: Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> FamilyCheckpoint:
    """Read a checkpoint of GPT-J, GPT-JT, GPT-JX, BTLM, GPT-2, or of LLaMA's layout with a GPT-2 BPE.

    Weights in four bits are dequantised. The law is one over the ids that have a token.

    Args:
        folder: with ``config.json``, safetensors or ``.bin`` files, and ``tokenizer.json`` or ``vocab.json`` and
            ``merges.txt``.
        dtype: of the weights; default that of the embedding in the file.
        device: where they go.
    Raises:
        CheckpointError: a file is missing, damaged or of another kind; the message names it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder, expected one with config.json and weights")
    config, weights = read_config(folder), open_weights(folder)
    try:
        tensors = _dequantised(weights, recognise(config, _without_parts(weights.names)))
        tokenizer = BPETokenizer.from_folder(folder)
        vocab_size = tokenizer.vocab_size
        imported = import_model(config, tensors, vocab_size=vocab_size, dtype=dtype, device=device)
    except CheckpointError as error:
        raise CheckpointError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from error
    lay_out_for_decoding(imported.model)
    return FamilyCheckpoint(imported.model, imported.family, tokenizer)


def _without_parts(names: Collection[str]) -> list[str]:
    """The names of weights, each once, however it is stored."""
    groups = four_bit_names(names)
    parts = {part for group in groups.values() for part in group[1:]}
    return [name for name in names if name not in parts]


def _dequantised(weights: Weights, family: Family) -> Tensors:
    """The weights as they are, or with those of four bits as plain tensors."""
    groups = four_bit_names(weights.names)
    if not groups:
        return weights
    transposed = any(layout == "columns" for entry in family.entries for _, layout in entry.theirs)
    if transposed:
        name = next(iter(groups))
        raise CheckpointError(
            f"{weights.where(name)}: tensor {name} is in four bits, expected so of gptj or llama only, found a"
            f" {family.name} model"
        )
    return _FourBitTensors(weights, groups)


class _FourBitTensors:
    """Weights of four bits as plain tensors, dequantised one by one as they are read."""

    def __init__(self, weights: Weights, groups: dict[str, list[str]]) -> None:
        self._weights, self._groups = weights, groups
        self.names: Collection[str] = frozenset(_without_parts(weights.names))

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the dequantised weight."""
        if name not in self._groups:
            return self._weights.shape(name)
        return tuple(self._weight(name).shape)

    def dtype(self, name: str) -> torch.dtype:
        """Before quantisation."""
        return self._weight(name).dtype if name in self._groups else self._weights.dtype(name)

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The dequantised weight."""
        if name not in self._groups:
            return self._weights.read(name, dtype)
        return self._weight(name).dequantise(dtype)

    def where(self, name: str) -> Path:
        """The file it is in."""
        return self._weights.where(name)

    def _weight(self, name: str) -> FourBitWeight:
        where = str(self._weights.where(name))
        return read_four_bit(name, self._groups[name], self._weights.read, where)
