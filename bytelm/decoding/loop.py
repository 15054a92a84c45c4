"""The one decoding loop: every law, every drafter, every batch."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bytelm.decoding.drafters import NoDrafter
from bytelm.decoding.emission import EmissionRule, emit
from bytelm.decoding.generation import Generation, Ledger
from bytelm.decoding.noise import GumbelNoise, row_seeds
from bytelm.decoding.protocols import Drafter, Target
from bytelm.decoding.sampling import Sampling
from bytelm.decoding.stops import Stop
from bytelm.errors import DecodingError

Streamer = Callable[[int, NDArray[Any]], None]
"""``streamer(row, new_symbols)``, called after every forward for each live row, the symbols of a stop included."""

_GREEDY = Sampling()
_NO_DRAFT = NoDrafter()


@torch.inference_mode()
def decode(
    target: Target,
    prompts: Sequence[NDArray[np.uint8]],
    *,
    max_new: int,
    sampling: Sampling = _GREEDY,
    stops: Sequence[Stop] = (),
    drafter: Drafter = _NO_DRAFT,
    seed: int | Sequence[int] = 0,
    streamer: Streamer | None = None,
) -> Generation:
    """Generate after every prompt until a stop or ``max_new`` symbols.

    The output is a function of target, prompt, sampling, and the row's seed and identity alone: the same for every
    drafter, draft length and batch composition, as far as the target's logits are the same.

    Args:
        target: the model under one law; its state is overwritten.
        prompts: one array per row, of any lengths.
        max_new: the exact length of a row that no stop ends.
        sampling: how a symbol is chosen; default greedy.
        stops: asked after every symbol, in order; the first that says so ends its row.
        drafter: proposes at most ``target.max_draft`` symbols a forward.
        seed: an integer gives row r the noise of (seed, r); a list gives each row its own seed, with identity 0.
        streamer: receives each row's new symbols after every forward.
    Raises:
        DecodingError: no prompts, ``max_new`` below 1, a seed out of range, or what ``target.start`` refuses.
    """
    began = time.perf_counter()
    if len(prompts) == 0:
        raise DecodingError("prompts: found none, expected at least one")
    if max_new < 1:
        raise DecodingError(f"max_new: found {max_new}, expected at least 1")
    rule = EmissionRule(sampling, GumbelNoise(row_seeds(seed, len(prompts))))
    ledger = Ledger(len(prompts), max_new, stops)
    block = target.start(prompts, max_new)
    draft = torch.empty(len(prompts), 0, dtype=torch.int64, device=target.device)
    while True:
        live = torch.from_numpy(ledger.live).to(draft.device)
        emission = emit(block, rule.at(ledger.lengths), live, ledger.limit)
        kept = ledger.record(emission, draft)
        if streamer is not None:
            for row in np.flatnonzero(kept).tolist():
                streamer(row, ledger.new_symbols(row, int(kept[row])))
        if not ledger.live.any():
            return ledger.close(time.perf_counter() - began)
        counts = torch.from_numpy(kept * ledger.live).to(emission.symbols.device)
        draft = drafter.propose(block, emission.symbols, counts, rule.at(ledger.lengths))
        assert draft.shape[1] <= target.max_draft
        block = target.advance(emission.symbols, counts, draft)
