"""How weights lie in memory where a model is read a few positions at a time."""

import torch
from torch import nn


def lay_out_for_decoding(model: nn.Module) -> None:
    """Store float32 matrices on the CPU that have more outputs than inputs by columns. Shapes and values stay.

    A product with 1 to 16 rows then takes 0.7 to 0.95 of the time (``experiments/weight_layout.py``). Products round
    differently; weights that are trained or sharded should stay stored by rows.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu":
            outputs, inputs = layer.weight.shape
            if outputs > inputs:
                layer.weight.data = layer.weight.data.t().contiguous().t()
