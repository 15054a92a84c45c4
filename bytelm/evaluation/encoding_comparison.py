"""How encodings and codecs write the same texts: length, patches, and what independent heads pay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from bytelm.encoding import get_encoding
from bytelm.evaluation.code_words import CODECS, CodeWords
from bytelm.evaluation.total_correlation import BigramOracle, sample_contexts, total_correlation

DEFAULT_CODES = ("utf8", "utf16", "utf32", "cp932", "gb18030", "ranked2", "dense-ja", "dense-mul")


@final
@dataclass(frozen=True, slots=True)
class CodeComparison:
    """One code on one group of texts; its figures are over the characters that it has a word for.

    Attributes:
        group: of texts.
        code: name of the encoding or codec.
        missing: share of the characters that it has no word for.
        bytes_per_character: bytes over characters.
        characters_per_patch: characters in the bytes of a patch.
        aligned: share of the patches that begin with a character, texts being cut into patches from their beginnings.
        correlation_per_patch: mean total correlation of the bytes of a patch, bits; NaN where no patch could be drawn.
        correlation_error: its standard error over the patches drawn, bits.
        correlation_per_character: ``correlation_per_patch`` over ``characters_per_patch``.
    """

    group: str
    code: str
    missing: float
    bytes_per_character: float
    characters_per_patch: float
    aligned: float
    correlation_per_patch: float
    correlation_error: float
    correlation_per_character: float


def compare_codes(
    group: str,
    texts: Sequence[str],
    names: Sequence[str] = DEFAULT_CODES,
    *,
    patch: int = 4,
    patches: int = 200,
    oracle_characters: int = 400_000,
    seed: int = 0,
) -> list[CodeComparison]:
    """Compare codes on the texts of one group.

    The oracle of the total correlation is a character bigram fitted to every second text; patches are drawn from the
    others. A single text is split in the middle. Both use no more than ``oracle_characters`` of the beginning.

    Args:
        group: a name for the texts.
        texts: at least one character in all.
        names: encodings, and codecs of Python (``cp932``, ``gb18030``).
        patch: bytes.
        patches: how many to draw for the total correlation.
        oracle_characters: see above.
        seed: of the draw.

    Raises:
        EncodingError: an unknown name.
    """
    points = [np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.int64) for text in texts]
    vocabulary = np.unique(np.concatenate(points))
    fitting, drawn = _halves(points, oracle_characters)
    some = np.unique(np.concatenate([*fitting, *drawn]))
    oracle = BigramOracle.fit(fitting, some)
    rows = []
    for name in names:
        code = CodeWords.of_codec(name, vocabulary) if name in CODECS else CodeWords.of_encoding(get_encoding(name))
        contexts = sample_contexts(drawn, code, some, patch, patches, seed)
        bits = total_correlation(code, oracle, contexts, patch) if len(contexts.previous) else np.array([np.nan])
        rows.append(_row(group, code, points, patch, bits))
    return rows


def _halves(texts: Sequence[NDArray[np.int64]], limit: int) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Every second text, and the others, ``limit`` characters in all at most."""
    if len(texts) == 1:
        whole = texts[0][:limit]
        return [whole[: len(whole) // 2]], [whole[len(whole) // 2 :]]
    begins = np.cumsum([0, *map(len, texts)])
    cut = [text[: max(0, limit - begin)] for text, begin in zip(texts, begins, strict=False)]
    return cut[0::2], cut[1::2]


def _row(
    group: str, code: CodeWords, texts: Sequence[NDArray[np.int64]], patch: int, bits: NDArray[np.float64]
) -> CodeComparison:
    characters = num_bytes = starts = patches = total = 0
    for text in texts:
        lengths = code.lengths[text]
        total += len(text)
        lengths = lengths[lengths > 0].astype(np.int64)
        ends = np.cumsum(lengths)
        if len(lengths):
            characters += len(lengths)
            num_bytes += int(ends[-1])
            starts += int(np.count_nonzero((ends - lengths) % patch == 0))
            patches += -(-int(ends[-1]) // patch)
    per_character = num_bytes / characters if characters else float("nan")
    mean = float(bits.mean())
    return CodeComparison(
        group=group,
        code=code.name,
        missing=1 - characters / total,
        bytes_per_character=per_character,
        characters_per_patch=patch / per_character,
        aligned=starts / patches if patches else float("nan"),
        correlation_per_patch=mean,
        correlation_error=float(bits.std() / np.sqrt(len(bits))),
        correlation_per_character=mean * per_character / patch,
    )
