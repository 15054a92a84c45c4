"""Tables of vectors."""

import torch
from torch import nn


def embedding(num_rows: int, width: int) -> nn.Embedding:
    """A table of standard normal vectors; on the meta device a shape alone.

    There, ``nn.Embedding`` itself would draw too, for which torch imports its compiler: two seconds in every process
    that loads a model.
    """
    table = nn.Embedding.from_pretrained(torch.empty(num_rows, width), freeze=False)
    if not table.weight.is_meta:
        nn.init.normal_(table.weight)
    return table
