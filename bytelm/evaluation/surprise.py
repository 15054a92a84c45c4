"""What each character of a text tells a model: the bits that its symbols cost."""

import math
from typing import NamedTuple

import numpy as np

from bytelm.hub import LanguageModel
from bytelm.model.laws import check_law, score_symbols


class CharacterBits(NamedTuple):
    """A character, or several whose symbols cannot be told apart, and the bits of these symbols."""

    text: str
    bits: float


def character_bits(lm: LanguageModel, text: str, law: str | None = None) -> list[CharacterBits]:
    """The bits of a text, character by character, each counted where its last symbol stands.

    The pieces put together are the text, and the sum of their bits is that of :meth:`LanguageModel.score`. A token may
    hold several characters, and then they are one piece.

    Args:
        lm: reads the text after BOS.
        text: without controls.
        law: as for ``lm.score``.
    Raises:
        LawError: the model does not define ``law``.
        EncodingError: a lone surrogate, or a control string.
    """
    ids, patch = lm.tokenizer.encode(text), lm.config.patch
    opening = lm.tokenizer.opening(patch) if lm.tokenizer.begins_with_bos else lm.tokenizer.bos_patch(patch)
    chosen = check_law(lm.config, law)
    lm.model.eval()
    (nats,) = score_symbols(lm.model, chosen, [np.concatenate((opening, ids))], [len(opening)])
    decoder, pieces, bits = lm.tokenizer.decoder("replace"), list[CharacterBits](), 0.0
    for index, cost in enumerate(nats.tolist()):
        bits += cost / math.log(2)
        piece = decoder.decode(ids[index : index + 1])
        if piece:
            pieces.append(CharacterBits(piece, bits))
            bits = 0.0
    return pieces


def forward_pieces(lm: LanguageModel, text: str) -> list[str]:
    """The text cut where forwards of the body end: the characters that each patch, or token, of it completes.

    Patches begin with the text. A piece is empty where a forward completes no character.
    """
    ids, patch = lm.tokenizer.encode(text), lm.config.patch
    decoder = lm.tokenizer.decoder("replace")
    return [decoder.decode(ids[begin : begin + patch]) for begin in range(0, len(ids), patch)]
