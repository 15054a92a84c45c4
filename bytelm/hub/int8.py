"""Weights in eight bits: matrices, quantised by torchao where it is installed, and the rows of n-gram tables."""

import copy
import importlib
import itertools

from torch import nn

from bytelm.errors import ConfigError
from bytelm.heads import LMHead
from bytelm.model.byte_lm import ByteLM
from bytelm.model.ends import LMHeadConfig
from bytelm.nn.ngram import Int8Rows, NgramTables


def quantise_int8(model: ByteLM) -> None:
    """Round the matrices of linear layers to int8, in place, one after the other; each output has one scale.

    The largest weight of an output, in absolute value, becomes 127 (``Int8WeightOnlyConfig`` of torchao); activations
    stay in bfloat16 (16 bits in the native core, :func:`bytelm.nn.linear.linear`). Embeddings stay,
    and so does a head that uses the embedding's table.

    Raises:
        ConfigError: torchao cannot be imported.
    """
    try:
        torchao = importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise ConfigError(f"torchao: cannot be imported ({error}), expected the extra bytelm[quant]") from None
    kept: nn.Module | None = None
    match model.config.heads, model.heads:
        case LMHeadConfig(tied=True), LMHead() as head:
            kept = head.unembedding
    torchao.quantize_(
        model,
        torchao.Int8WeightOnlyConfig(set_inductor_config=False),
        filter_fn=lambda module, _: isinstance(module, nn.Linear) and module is not kept,
    )


def quantise_tables(model: ByteLM) -> None:
    """Round the rows of n-gram tables to int8, in place, one table after the other; each row has one scale.

    A row of width D takes D + 4 bytes then (:class:`~bytelm.nn.ngram.Int8Rows`).

    Raises:
        ConfigError: the model has no tables.
    """
    found = [module for module in model.modules() if isinstance(module, NgramTables)]
    if not found:
        raise ConfigError("int8_tables: found a model without n-gram tables, expected one that has some")
    for tables in found:
        if isinstance(tables.table, nn.Embedding):
            tables.table = Int8Rows(tables.table.weight)


def int8_copy(model: ByteLM) -> ByteLM:
    """A model with the matrices of linear layers in int8, as :func:`quantise_int8` makes them, beside the one given.

    All other tensors are those of the one given: only the codes and scales take memory.

    Raises:
        ConfigError: torchao cannot be imported.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    copied: ByteLM = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    quantise_int8(copied)
    return copied
