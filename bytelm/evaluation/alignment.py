"""How much the score of a text depends on where the patches begin."""

import math
from collections.abc import Sequence

import numpy as np

from bytelm.hub import LanguageModel
from bytelm.model.laws import check_law, score_symbols


def score_alignments(lm: LanguageModel, texts: Sequence[str], law: str | None = None) -> list[float]:
    """Bits per symbol of the same symbols of each text at the P alignments of its patches.

    The first patch of ``product`` and ``chain`` begins at symbol 0, 1, … P - 1 of a text; the symbols before it are
    read and not scored, and of all alignments the symbols from P - 1 on count. ``next`` has no patches: its numbers are
    all the same.

    Args:
        lm: a language model.
        texts: at least one that is longer than P - 1 symbols; shorter ones are left out.
        law: as for ``lm.score``.
    Raises:
        LawError: the model does not define ``law``.
    """
    chosen, patch = check_law(lm.config, law), lm.config.patch
    lm.model.eval()
    opening = lm.tokenizer.opening(patch)
    if len(opening) < patch:
        opening = lm.tokenizer.bos_patch(patch)
    rows = [np.concatenate((opening, ids)) for text in texts if len(ids := lm.tokenizer.encode(text)) >= patch]
    found = []
    for shift in range(patch):
        nats = score_symbols(lm.model, chosen, rows, [len(opening) + shift] * len(rows))
        kept = [row[patch - 1 - shift :] for row in nats]
        total = math.fsum(float(value) for row in kept for value in row)
        found.append(total / math.log(2) / sum(map(len, kept)))
    return found
