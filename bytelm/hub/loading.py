"""The language model of a folder or of the hub, whatever its format."""

from pathlib import Path

import torch

from bytelm.hub.checkpoint import FORMAT, load_checkpoint
from bytelm.hub.draft_heads import load_draft_heads
from bytelm.hub.exported import is_exported, load_exported
from bytelm.hub.family_folder import load_family
from bytelm.hub.int8 import quantise_int8, quantise_tables
from bytelm.hub.json_files import read_config
from bytelm.hub.language_model import LanguageModel
from bytelm.hub.source import find_folder
from bytelm.hub.token_checkpoint import FORMAT as TOKEN_FORMAT
from bytelm.hub.token_checkpoint import load_token_model
from bytelm.model.layout import lay_out_for_decoding
from bytelm.tokenizer import Tokenizer


def load(
    source: str | Path,
    device: str | torch.device = "cpu",
    *,
    dtype: torch.dtype | None = None,
    four_bit: str = "dequantise",
    draft_heads: str | Path | None = None,
    revision: str | None = None,
    int8: bool = False,
    int8_tables: bool = False,
) -> LanguageModel:
    """The language model of a checkpoint: ours, also in the folder that transformers reads, or of GPT-J's family.

    :func:`~bytelm.hub.family_folder.load_family` says which those are.

    Args:
        source: a folder, the name of a model of the package (``bytelm.hub.shipped.shipped_models()``), or the id of a
            model on the hub.
        device: where the model goes.
        dtype: of its weights; by default as in the file.
        four_bit: ``dequantise``, ``keep`` or ``kernels``, for files in four bits.
        draft_heads: folder of heads that were trained to draft for this model of tokens, see ``bytelm fit``.
        revision: branch, tag or commit of a model on the hub.
        int8: whether the matrices of linear layers are rounded to int8, each output with a scale, through torchao.
        int8_tables: whether the rows of n-gram tables are rounded to int8, each with a scale: another model, a quarter
            of the size of float32 tables, whose laws and decoding agree as those of any other.
    Raises:
        CheckpointError: a file is missing, damaged, of another version or of an unknown family; or draft heads are
            those of another model.
        ConfigError: an unknown ``four_bit``, or ``kernels`` without bitsandbytes; ``int8`` without torchao; or
            ``int8_tables`` without tables.
    """
    lm = _load(find_folder(source, revision), device, dtype, four_bit)
    if int8:
        quantise_int8(lm.model)
    if int8_tables:
        quantise_tables(lm.model)
    if draft_heads is not None:
        load_draft_heads(Path(draft_heads), lm.model)
    return lm


def _load(folder: Path, device: str | torch.device, dtype: torch.dtype | None, four_bit: str) -> LanguageModel:
    config = read_config(folder) if folder.is_dir() else {}
    if config.get("format") == TOKEN_FORMAT:
        return LanguageModel(*load_token_model(folder, device, dtype), family=TOKEN_FORMAT)
    if folder.is_dir() and config.get("format") != FORMAT and not is_exported(config):
        found = load_family(folder, dtype=dtype, device=device, four_bit=four_bit)
        return LanguageModel(found.model, found.tokenizer, found.family.name)
    checkpoint = (load_exported if is_exported(config) else load_checkpoint)(folder, device)
    if dtype is not None:
        checkpoint.model.to(dtype)
    lay_out_for_decoding(checkpoint.model)
    return LanguageModel(checkpoint.model, Tokenizer(checkpoint.encoding))
