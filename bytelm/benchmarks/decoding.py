"""Characters per forward and per second of every law of a model, against plain one-byte decoding."""

import dataclasses
import statistics
from collections.abc import Sequence

from bytelm.hub import LanguageModel


@dataclasses.dataclass(frozen=True)
class DecodingSpeed:
    """One way of decoding, measured.

    Attributes:
        law: the law that was decoded.
        draft: the drafter; ``none`` under ``next`` is plain one-byte decoding, one forward per byte.
        chars_per_forward: characters (U+FFFD does not count) per forward of a row, prefill included.
        chars_per_second: median over the repeats, prefill included.
        ratio: ``chars_per_second`` over that of plain one-byte decoding, the median of pairs measured in turn.
    """

    law: str
    draft: str
    chars_per_forward: float
    chars_per_second: float
    ratio: float


def measure_decoding(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 160,
    do_sample: bool = False,
    repeats: int = 3,
    seed: int = 0,
) -> list[DecodingSpeed]:
    """Decode the prompts, one at a time, in every way the model knows; plain one-byte decoding first.

    The ways take turns in each repeat, after one warm-up, so that a machine whose speed drifts is fair to all of them.
    Greedy or at temperature 1. The rows of ``next`` give the same text with and without drafting.
    """
    ways = [("next", "none"), ("next", "heads")] + [(law, "none") for law in lm.laws if law != "next"]
    per_forward = dict.fromkeys(ways, 0.0)
    per_second: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for repeat in range(-1, repeats):
        for law, draft in ways:
            chars, forwards, seconds = 0, 0, 0.0
            for i, prompt in enumerate(prompts):
                out = lm.generate(
                    [prompt],
                    max_new_tokens=max_new_tokens if repeat >= 0 else 8,
                    law=law,
                    draft=draft,  # type: ignore[arg-type]
                    do_sample=do_sample,
                    seed=[seed + i],
                )
                chars += out.num_chars
                forwards += sum(out.stats.row_forwards)
                seconds += out.stats.seconds
            if repeat >= 0:
                per_forward[law, draft] = chars / forwards
                per_second[law, draft].append(chars / seconds)
    plain = per_second[ways[0]]
    return [
        DecodingSpeed(
            law,
            draft,
            per_forward[law, draft],
            statistics.median(per_second[law, draft]),
            statistics.median(a / b for a, b in zip(per_second[law, draft], plain, strict=True)),
        )
        for law, draft in ways
    ]
