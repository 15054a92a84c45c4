"""A model that is forced to go round a cycle of distinct bytes, whatever came before."""

import torch
from support import tiny_model


@torch.no_grad()
def cyclic_model(kind, cycle, entry):
    """Emits ``cycle`` (distinct byte values) for ever; each byte of ``entry`` is followed by its beginning.

    The embedding of a window's last byte is carried to the heads unchanged (attention and feed-forward write nothing),
    and the unembedding row of a byte, in head j, is the embedding of the byte that stands j places before it.
    """
    assert len(set(cycle)) == len(cycle)
    assert not set(cycle) & set(entry)
    model = tiny_model(kind)
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        if name.endswith(("attention.output.weight", "down.weight")) or name.startswith("heads.unembedding"):
            weight.zero_()
        elif weight.dim() == 1:
            weight.fill_(1)
    num = weights["merger.embedding.weight"].shape[1]
    codes = torch.nn.functional.normalize(torch.randn(256, num, generator=torch.Generator().manual_seed(1)), dim=1)
    codes[entry] = codes[cycle[-1]].clone()
    weights["merger.embedding.weight"].copy_(codes)
    weights["merger.projection.weight"].zero_()[:num, -num:] = torch.eye(num)
    for j in range(4):
        if kind == "chained":
            rows = weights[f"heads.unembeddings.{j}.weight"]
        else:
            rows = weights["heads.unembedding.weight"][256 * j : 256 * (j + 1)]
        for i, byte in enumerate(cycle):
            rows[byte, :num] = 40 * codes[cycle[(i - j - 1) % len(cycle)]]
    return model
