"""Characters per second and per forward of every law and drafter of a model, against plain one-byte decoding."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bytelm.benchmarks.bandwidth import slot_bytes, weight_bytes
from bytelm.benchmarks.timing import median_ratio, take_turns
from bytelm.errors import DecodingError
from bytelm.hub import LanguageModel, Output
from bytelm.model.ends import Law
from bytelm.model.laws import check_law

DRAFTS = ("none", "heads", "lookup", "auto")
"""The drafters that are measured, by the names that ``generate`` knows."""

_WARM_UP = 8


class Way(NamedTuple):
    """One way of decoding."""

    law: Law
    draft: str


PLAIN = Way("next", "none")
"""Plain one-byte decoding: one forward per byte."""


@dataclasses.dataclass(frozen=True)
class DecodingRun:
    """What one way did with all prompts in one repeat: sums over its calls.

    Attributes:
        chars: characters; U+FFFD does not count.
        utf8_bytes: of those characters.
        symbols: bytes of the model's encoding.
        forwards: a forward of a batch counts once, the prefill as one.
        row_forwards: forwards of each row while it was live, over all rows.
        bytes_read: of weights and of cached keys and values, see :class:`DecodingSpeed`.
        seconds: wall time of the calls, prefill included.
        judged_at, accepted_at: see :class:`bytelm.decoding.DecodeStats`.
    """

    chars: int
    utf8_bytes: int
    symbols: int
    forwards: int
    row_forwards: int
    bytes_read: float
    seconds: float
    judged_at: tuple[int, ...]
    accepted_at: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class DecodingSpeed:
    """One way of decoding at one batch size and temperature. Speeds are medians over the repeats, prefill included.

    Attributes:
        law: the law that was decoded.
        draft: the drafter; ``none`` under ``next`` is plain one-byte decoding, one forward per byte.
        batch: rows decoded together.
        temperature: 0 for greedy.
        chars_per_second: of all rows; U+FFFD does not count.
        utf8_bytes_per_second: of those characters in UTF-8.
        symbols_per_second: bytes of the model's encoding.
        chars_per_forward: characters of a row per forward of it.
        forwards_per_char: its inverse; infinite where there was no character.
        seconds_per_forward: wall time over forwards of the batch.
        bytes_read_per_second: what the forwards must read: the weight matrices of the law and its drafter once a
            forward (:func:`bytelm.benchmarks.bandwidth.weight_bytes`), and the cached keys and values once a stream, at
            the mean length of each row. Over the bandwidth of memory it is the share of the roof.
        acceptance_at: for each draft offset the share of judged drafts that were accepted, over all repeats.
        ratio: ``chars_per_second`` over that of plain one-byte decoding, the median of pairs measured in turn.
    """

    law: str
    draft: str
    batch: int
    temperature: float
    chars_per_second: float
    utf8_bytes_per_second: float
    symbols_per_second: float
    chars_per_forward: float
    forwards_per_char: float
    seconds_per_forward: float
    bytes_read_per_second: float
    acceptance_at: tuple[float, ...]
    ratio: float


def decoding_ways(lm: LanguageModel, laws: Sequence[str] | None = None, drafts: Sequence[str] = DRAFTS) -> list[Way]:
    """Every law with every drafter that it has; plain one-byte decoding is always there, and first.

    Args:
        lm: the model.
        laws: some of its laws; all for None.
        drafts: see :func:`law_drafts`.
    Raises:
        LawError: the model does not define a law.
        DecodingError: an unknown drafter.
    """
    chosen = sorted(laws or lm.laws, key=lambda law: law != "next")
    ways = [way for law in chosen for way in law_drafts(lm, law, drafts)]
    return list(dict.fromkeys([PLAIN, *ways]))


def law_drafts(lm: LanguageModel, law: str, drafts: Sequence[str] = DRAFTS) -> list[Way]:
    """One law with every drafter that it has, in the order of ``drafts``.

    Args:
        lm: the model.
        law: of the model.
        drafts: some of :data:`DRAFTS`; ``heads`` is left out under a law that has none to draft with.
    Raises:
        LawError: the model does not define the law.
        DecodingError: an unknown drafter.
    """
    for draft in drafts:
        if draft not in DRAFTS:
            raise DecodingError(f"draft: found {draft!r}, expected some of {', '.join(DRAFTS)}")
    chosen = check_law(lm.config, law)
    return [Way(chosen, draft) for draft in drafts if draft != "heads" or lm.make_target(chosen).max_guess]


def measure_decoding(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    ways: Sequence[Way] | None = None,
    batch: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 160,
    repeats: int = 3,
    compile: bool = False,
    seed: int = 0,
) -> list[DecodingSpeed]:
    """Decode the prompts in every way, plain one-byte decoding first. All ways take turns after a warm-up.

    Row i continues prompt ``i mod len(prompts)`` with the seed ``seed + i``; there are as many rows as fill whole
    batches and use every prompt. So the ways of one law decode the same texts, at every batch size.

    Args:
        lm: the model.
        prompts: at least one.
        ways: see :func:`decoding_ways`, all of which is the default; must begin with :data:`PLAIN`.
        batch: rows decoded together.
        temperature: 0 for greedy.
        max_new_tokens: symbols per row.
        repeats: turns of every way.
        compile: decode through ``torch.compile``; the warm-up is then a whole turn.
        seed: of the first row.
    """
    ways = decoding_ways(lm) if ways is None else ways
    assert ways[0] == PLAIN
    num_rows = -(-len(prompts) // batch) * batch
    rows = [prompts[i % len(prompts)] for i in range(num_rows)]

    def decode(way: Way, num_new: int) -> DecodingRun:
        """Generate for all rows, a batch after the other."""
        calls = []
        for begin in range(0, num_rows, batch):
            began = time.perf_counter()
            out = lm.generate(
                rows[begin : begin + batch],
                max_new_tokens=num_new,
                law=way.law,
                draft=way.draft,
                do_sample=temperature > 0,
                temperature=temperature or 1.0,
                compile=compile,
                seed=list(range(seed + begin, seed + begin + batch)),
            )
            calls.append((out, time.perf_counter() - began, rows[begin : begin + batch]))
        return _sum_up(lm, way, calls)

    for way in ways:
        decode(way, max_new_tokens if compile else min(_WARM_UP, max_new_tokens))
    runs = take_turns({way: lambda way=way: decode(way, max_new_tokens) for way in ways}, repeats)  # type: ignore[misc]
    return [summarise(way, batch, temperature, runs[way], runs[PLAIN]) for way in ways]


def summarise(
    way: Way, batch: int, temperature: float, runs: Sequence[DecodingRun], plain: Sequence[DecodingRun]
) -> DecodingSpeed:
    """The figures of one way from its runs and from those of plain decoding in the same repeats."""
    chars, row_forwards = sum(run.chars for run in runs), sum(run.row_forwards for run in runs)
    judged = _add([run.judged_at for run in runs])
    accepted = _add([run.accepted_at for run in runs])
    return DecodingSpeed(
        law=way.law,
        draft=way.draft,
        batch=batch,
        temperature=temperature,
        chars_per_second=statistics.median(run.chars / run.seconds for run in runs),
        utf8_bytes_per_second=statistics.median(run.utf8_bytes / run.seconds for run in runs),
        symbols_per_second=statistics.median(run.symbols / run.seconds for run in runs),
        chars_per_forward=chars / row_forwards,
        forwards_per_char=row_forwards / chars if chars else float("inf"),
        seconds_per_forward=statistics.median(run.seconds / run.forwards for run in runs),
        bytes_read_per_second=statistics.median(run.bytes_read / run.seconds for run in runs),
        acceptance_at=tuple(a / j for a, j in zip(accepted, judged, strict=True) if j),
        ratio=median_ratio([run.chars / run.seconds for run in runs], [run.chars / run.seconds for run in plain]),
    )


def _sum_up(lm: LanguageModel, way: Way, calls: Sequence[tuple[Output, float, Sequence[str]]]) -> DecodingRun:
    """One run from its calls: output, seconds and prompts of each."""
    outs = [out for out, _, _ in calls]
    forwards = sum(out.stats.forwards for out in outs)
    read = forwards * weight_bytes(lm.model, way.law, way.draft)
    return DecodingRun(
        chars=sum(out.num_chars for out in outs),
        utf8_bytes=sum(out.num_utf8_bytes for out in outs),
        symbols=sum(out.stats.symbols for out in outs),
        forwards=forwards,
        row_forwards=sum(sum(out.stats.row_forwards) for out in outs),
        bytes_read=read + sum(_cache_bytes(lm, out, prompts) for out, _, prompts in calls),
        seconds=sum(seconds for _, seconds, _ in calls),
        judged_at=_add([out.stats.judged_at for out in outs]),
        accepted_at=_add([out.stats.accepted_at for out in outs]),
    )


def _cache_bytes(lm: LanguageModel, out: Output, prompts: Sequence[str]) -> float:
    """Bytes of keys and values that the forwards of a call read. Under ``next`` each state reads a stream of its own,
    of which there are P.
    """
    patch, itemsize = lm.config.patch, next(lm.model.parameters()).element_size()
    forwards = out.stats.row_forwards
    streams = min(patch, out.stats.states / max(1, sum(forwards) - len(forwards))) if out.law == "next" else 1
    lengths = [len(lm.tokenizer.encode(prompt)) + len(ids) / 2 for prompt, ids in zip(prompts, out.ids, strict=True)]
    slots = sum(count * (1 + length / patch) for count, length in zip(forwards, lengths, strict=True))
    return streams * slots * slot_bytes(lm.config, itemsize)


def _add(counts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Sums by place, of counts of different lengths."""
    longest = max(map(len, counts))
    padded = [[*row, *[0] * (longest - len(row))] for row in counts]
    return tuple(np.array(padded, dtype=np.int64).sum(0).tolist())
