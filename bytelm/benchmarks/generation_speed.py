"""Characters per second and per forward of several models on the same prompts, for the same number of characters."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bytelm.benchmarks.decoding import DRAFTS, Way, law_drafts
from bytelm.benchmarks.timing import take_turns
from bytelm.errors import DecodingError
from bytelm.hub import LanguageModel

_SYMBOLS_PER_CHAR = 4
"""The most that a character has: bytes of UTF-8, tokens of such bytes, bytes of the encodings."""

_WARM_UP = 8


@dataclasses.dataclass(frozen=True)
class GenerationSpeed:
    """One way of decoding of one model, greedy and at batch 1.

    Attributes:
        model: its name.
        law: the law that was decoded.
        draft: the drafter.
        characters: that one repeat generated; U+FFFD does not count.
        chars_per_forward: characters over forwards, prefills included; drafts do not change the text.
        chars_per_second: prefills included; the median of the repeats.
    """

    model: str
    law: str
    draft: str
    characters: int
    chars_per_forward: float
    chars_per_second: float


class _Case(NamedTuple):
    model: str
    way: Way


class _Run(NamedTuple):
    chars: int
    forwards: int
    seconds: float


def check_generation(name: str, lm: LanguageModel, prompts: Sequence[str], max_new_chars: int) -> None:
    """Refuse prompts whose continuations the context of a model may not hold.

    Raises:
        DecodingError: names the model and the figures.
    """
    longest, num_new = max(len(lm.tokenizer.encode(prompt)) for prompt in prompts), _most_symbols(max_new_chars)
    total = longest + num_new + (lm.config.patch if lm.tokenizer.begins_with_bos else 0)
    if total > lm.config.context:
        raise DecodingError(
            f"model {name}: {longest} symbols of a prompt, and {num_new} for {max_new_chars} new characters, make"
            f" {total} with BOS, expected at most the model's context of {lm.config.context}"
        )


def measure_generation(
    models: Mapping[str, tuple[LanguageModel, Sequence[str]]],
    prompts: Sequence[str],
    *,
    drafts: Sequence[str] = DRAFTS,
    max_new_chars: int = 128,
    repeats: int = 3,
    on_progress: Callable[[], None] = lambda: None,
) -> list[GenerationSpeed]:
    """Continue the prompts greedily, one at a time, in every way of every model. All ways take turns after a warm-up.

    No text ends before ``max_new_chars`` characters, so that all models write as many; one that writes malformed
    pieces or controls, which are no characters, may stop at four symbols per character with fewer.

    Args:
        models: each with the laws to decode, by name.
        prompts: at least one.
        drafts: some of :data:`~bytelm.benchmarks.decoding.DRAFTS`; a law without heads to draft with leaves them out.
        max_new_chars: characters per prompt.
        repeats: turns of every way.
        on_progress: called after every run of :func:`num_runs`.
    Raises:
        DecodingError: an unknown drafter; see also :func:`check_generation`.
    """
    cases = _cases(models, drafts)
    for name, (lm, _) in models.items():
        check_generation(name, lm, prompts, max_new_chars)

    def decode(case: _Case, some: Sequence[str], num_chars: int) -> _Run:
        """Continue some prompts one by one."""
        lm = models[case.model][0]
        chars = forwards = 0
        began = time.perf_counter()
        for prompt in some:
            out = lm.generate(
                [prompt],
                max_new_chars=num_chars,
                max_new_tokens=_most_symbols(num_chars),
                eos_token_id=(),
                law=case.way.law,
                draft=case.way.draft,
            )
            chars, forwards = chars + out.num_chars, forwards + sum(out.stats.row_forwards)
        seconds = time.perf_counter() - began
        on_progress()
        return _Run(chars, forwards, seconds)

    for case in cases:
        decode(case, prompts[:1], min(_WARM_UP, max_new_chars))
    runs = take_turns({case: lambda case=case: decode(case, prompts, max_new_chars) for case in cases}, repeats)  # type: ignore[misc]
    return [
        GenerationSpeed(
            case.model,
            *case.way,
            characters=runs[case][0].chars,
            chars_per_forward=sum(run.chars for run in runs[case]) / sum(run.forwards for run in runs[case]),
            chars_per_second=statistics.median(run.chars / run.seconds for run in runs[case]),
        )
        for case in cases
    ]


def num_runs(
    models: Mapping[str, tuple[LanguageModel, Sequence[str]]], drafts: Sequence[str] = DRAFTS, repeats: int = 3
) -> int:
    """Runs of :func:`measure_generation`, warm-ups included."""
    return len(_cases(models, drafts)) * (repeats + 1)


def _cases(models: Mapping[str, tuple[LanguageModel, Sequence[str]]], drafts: Sequence[str]) -> list[_Case]:
    return [
        _Case(name, way) for name, (lm, laws) in models.items() for law in laws for way in law_drafts(lm, law, drafts)
    ]


def _most_symbols(chars: int) -> int:
    return _SYMBOLS_PER_CHAR * chars
