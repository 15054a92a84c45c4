"""How the blocks of a body run while they train: compiled; or with memory given for time."""

import functools

from torch.utils.checkpoint import checkpoint

from bytelm.compilation import compiled_to_train
from bytelm.model.byte_lm import ByteLM


def compile_blocks(model: ByteLM) -> None:
    """Put every block of the body through ``torch.compile``; to be called before :func:`checkpoint_activations`.

    Results differ in rounding from those of plain blocks.
    """
    for block in model.blocks:
        block.forward = compiled_to_train(block.forward)


def checkpoint_activations(model: ByteLM) -> None:
    """Let every block of the body keep nothing but its input for the backward pass, which runs it once more (Chen et
    al. 2016, arXiv:1604.06174). Losses and gradients stay the same to the bit; names of parameters too.
    """
    for block in model.blocks:
        # No part of a block draws random numbers, so their state is neither kept nor set back.
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
