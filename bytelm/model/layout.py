"""How weights lie in memory where a model is read a few positions at a time."""

import torch
from torch import nn

from bytelm.model.byte_lm import ByteLM
from bytelm.nn.native_body import has_core


def lay_out_for_decoding(model: nn.Module) -> None:
    """Store float32 matrices on the CPU that have more outputs than inputs by columns, all others by rows.

    Shapes and values stay. In float32 a product with 1 to 16 rows then takes 0.7 to 0.95 of the time
    (``experiments/weight_layout.py``); in bfloat16 one with a matrix stored by columns takes 15 times as long as by
    rows. All are stored by rows where the native core reads the blocks (:mod:`bytelm.nn.native_body`). Products round
    differently; weights that are trained or sharded should stay stored by rows.
    """
    for_core = isinstance(model, ByteLM) and has_core(model.blocks)
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.weight.device.type == "cpu":
            weight = layer.weight.data
            outputs, inputs = weight.shape
            by_columns = outputs > inputs and weight.dtype == torch.float32 and not for_core
            layer.weight.data = weight.t().contiguous().t() if by_columns else weight.contiguous()
