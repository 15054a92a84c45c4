"""Audits of a target: its cache after every round, and output of low precision against its own law."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding import Block, JoiningTarget, Target
from bytelm.model.targets import NextTarget, PatchTarget
from bytelm.testing.ours import ToyTarget
from bytelm.testing.reports import NOTHING, Findings, Report, reporting
from bytelm.testing.toy import ORDER, UNWRITTEN

TOLERANCE = 1e-5
"""Largest difference of logits in float32, relative to the largest of them or 1."""

_NO_SYMBOL = 10**6


class Committed(NamedTuple):
    """What a target has been told to keep, before its next forward.

    Attributes:
        prompts: symbols of each row's prompt.
        lengths: symbols of prompt and output of each row.
        widest: more symbols than any row can have by what the target was told.
        max_draft: the most symbols that the next forward may be run on beyond these.
    """

    prompts: Sequence[int]
    lengths: Sequence[int]
    widest: int
    max_draft: int


Poison = Callable[[Target, Committed], None]
"""Makes unusable whatever the next forward must overwrite or leave alone."""


def check_cache(
    make_target: Callable[[], Target],
    prompts: Sequence[NDArray[Any]],
    *,
    max_draft: int = 8,
    rounds: int = 12,
    poison: Poison | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Report:
    """After every round, a target knows what a fresh one knows that reads the committed symbols as its prompt.

    Drafts are random in length and content and hold for a random while; rows finish, leave, join, change places, are
    copied and are rewound. Every state of every block is compared, after every number of symbols of its unit.

    Args:
        make_target: gives a new target of the same model.
        prompts: of any lengths.
        max_draft: the most drafted symbols.
        rounds: forwards after the prefill.
        poison: called before every forward, see :func:`poison_cache`.
        seed: of all that is random here.
        tolerance: largest difference of logits, relative to the largest of them or 1.
    """
    audit = _CacheAudit(make_target, prompts, max_draft, rounds, poison, seed, tolerance)
    return reporting("cache", audit.run, NOTHING)


class _CacheAudit:
    """One audit: what was committed to each row, and the round that runs."""

    def __init__(
        self,
        make_target: Callable[[], Target],
        prompts: Sequence[NDArray[Any]],
        max_draft: int,
        rounds: int,
        poison: Poison | None,
        seed: int,
        tolerance: float,
    ) -> None:
        self._make_target, self._rounds, self._poison, self._tolerance = make_target, rounds, poison, tolerance
        self._target = make_target()
        self._unit = self._target.unit
        self._max_draft = max_draft - max_draft % self._unit
        self._rng = np.random.default_rng(seed)
        self._prompts = list(prompts)
        self._rows = [prompt.tolist() for prompt in prompts]
        self._begins = [len(prompt) for prompt in prompts]
        self._live = np.ones(len(prompts), dtype=bool)
        self._widest = max(self._begins)
        self._num_new = rounds * (self._max_draft + self._unit)

    @torch.inference_mode()
    def run(self, findings: Findings) -> None:
        """Prefill, then rounds."""
        target, unit, rng = self._target, self._unit, self._rng
        block = target.start(self._prompts, self._num_new, self._max_draft)
        draft = torch.zeros(len(self._rows), 0, dtype=torch.int64)
        for number in range(self._rounds + 1):
            findings.case()
            findings.figures["states"] = findings.figures.get("states", 0) + block.num_states * int(self._live.sum())
            self._compare(findings, f"round {number}", block, draft)
            emitted, counts = self._emit(draft)
            if number % 4 == 2:
                emitted, counts = self._rewind(emitted, counts)
            self._commit(emitted, counts)
            if number % 5 == 3:
                emitted, counts = self._reorder(emitted, counts)
            if number % 5 == 1:
                emitted, counts = self._arrive(emitted, counts)
            if self._poison is not None:
                lengths = [len(row) for row in self._rows]
                self._poison(target, Committed(self._begins, lengths, self._widest, self._max_draft))
            width = int(rng.integers(0, self._max_draft // unit + 1)) * unit
            draft = torch.from_numpy(rng.integers(0, target.vocab_size, (len(self._rows), width)))
            block = target.advance(emitted.to(target.device), counts.to(target.device), draft.to(target.device))

    def _compare(self, findings: Findings, name: str, block: Block, draft: Tensor) -> None:
        """Every state of every live row against a fresh prefill."""
        live, unit, device = np.flatnonzero(self._live), self._unit, self._target.device
        findings.require(block.num_states == draft.shape[1] // unit + 1, f"{name}: {block.num_states} states")
        texts = [
            np.array([*self._rows[row], *draft[row, : r * unit].tolist()], dtype=self._prompts[0].dtype)
            for row in live.tolist()
            for r in range(block.num_states)
        ]
        fresh = self._make_target().start(texts, unit, 0)
        prefix = torch.from_numpy(
            self._rng.integers(0, self._target.vocab_size, (len(self._rows), block.num_states, unit))
        ).to(device)
        for n in range(unit):
            found = block.logits(prefix[..., :n])[torch.from_numpy(live).to(device)].flatten(0, 1)
            expected = fresh.logits(prefix[torch.from_numpy(live).to(device), :, :n].flatten(0, 1)[:, None])[:, 0]
            scale = max(1.0, float(expected.abs().max()))
            error = float((found - expected).abs().nan_to_num(nan=torch.inf).max()) / scale
            findings.highest("worst", error)
            findings.require(
                error <= self._tolerance,
                f"{name}: logits after {n} symbols of the unit off by {error:.2g} of the largest,"
                f" expected at most {self._tolerance:g}",
            )

    def _emit(self, draft: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols that agree with the draft for a random while, and how many of them each row keeps."""
        unit, rng, num_rows = self._unit, self._rng, len(self._rows)
        if self._live.sum() > 2 and rng.random() < 0.15:
            self._live[rng.choice(np.flatnonzero(self._live))] = False
        emitted = torch.from_numpy(rng.integers(0, self._target.vocab_size, (num_rows, draft.shape[1] + unit)))
        counts = np.zeros(num_rows, dtype=np.int64)
        for row in np.flatnonzero(self._live).tolist():
            right = int(rng.integers(0, draft.shape[1] // unit + 1))
            emitted[row, : right * unit] = draft[row, : right * unit]
            counts[row] = (right + 1) * unit
        return emitted, torch.from_numpy(counts)

    def _commit(self, emitted: Tensor, counts: Tensor) -> None:
        for row, count in enumerate(counts.tolist()):
            self._rows[row] = self._rows[row] + emitted[row, :count].tolist()
        self._widest += emitted.shape[1]

    def _rewind(self, emitted: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Forget a random number of whole units of each row; a fresh unit follows."""
        unit = self._unit
        back = np.zeros(len(self._rows), dtype=np.int64)
        for row in np.flatnonzero(self._live).tolist():
            most = (len(self._rows[row]) - self._begins[row]) // unit
            back[row] = int(self._rng.integers(0, most + 1)) * unit
            self._rows[row] = self._rows[row][: len(self._rows[row]) - int(back[row])]
        self._target.rewind(torch.from_numpy(back).to(self._target.device))
        return emitted[:, :unit], counts.clamp(max=unit)

    def _reorder(self, emitted: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Take the finished rows out, change the order of the others, and copy one."""
        rows = self._rng.permutation(np.flatnonzero(self._live))
        rows = np.append(rows, rows[:1])
        self._target.select(torch.from_numpy(rows).to(self._target.device))
        self._rows, self._begins = ([part[row] for row in rows.tolist()] for part in (self._rows, self._begins))
        self._live = self._live[rows]
        return emitted[rows], counts[rows]

    def _arrive(self, emitted: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Two rows join, of prompts that were there, each with a first unit."""
        if not isinstance(self._target, JoiningTarget):
            return emitted, counts
        arriving, unit = self._target.new(), self._unit
        prompts = [self._prompts[n] for n in self._rng.integers(0, len(self._prompts), 2).tolist()]
        block = arriving.start(prompts, self._num_new, self._max_draft)
        assert block.num_states == 1
        self._target.join(arriving)
        units = torch.from_numpy(self._rng.integers(0, self._target.vocab_size, (len(prompts), unit)))
        self._rows += [[*prompt.tolist(), *symbols] for prompt, symbols in zip(prompts, units.tolist(), strict=True)]
        self._begins += [len(prompt) for prompt in prompts]
        self._live = np.append(self._live, [True] * len(prompts))
        padded = torch.nn.functional.pad(units, (0, emitted.shape[1] - unit))
        return torch.cat((emitted, padded)), torch.cat((counts, torch.full((len(prompts),), unit)))


def poison_cache(target: Target, committed: Committed) -> None:
    """A :data:`Poison` for the targets of byte models and toy laws.

    Slots after the committed symbols hold what must not be read: NaN where the next forward does not even load them,
    numbers that no computation survives where a mask must hide them (0 times NaN would be NaN), and the last committed
    unit's own, which it must write before. So do bytes that the target was not yet told of.
    """
    if isinstance(target, ToyTarget):
        for row, length in enumerate(committed.lengths):
            target.slots_BS[row, ORDER + length - target.unit :] = UNWRITTEN
        return
    assert isinstance(target, PatchTarget | NextTarget)
    patch, cache = target.patch, target.cache
    keep = _kept_slots(target, committed)
    slots = torch.arange(cache.capacity, device=target.device)
    hidden = slots >= torch.tensor(keep, device=target.device)[:, None]
    # BOS, what is committed and the draft, the last two in whole rounds of P windows.
    beyond = slots >= (committed.widest + committed.max_draft) // patch + 3 + cache.capacity * target.fixed_shapes
    for part in (*cache.keys, *cache.values):
        huge = torch.finfo(part.dtype).max ** 0.5
        part.masked_fill_(hidden[:, None, :, None], huge)
        part.masked_fill_(beyond[None, None, :, None], torch.nan)
    cache.windows.masked_fill_(hidden[..., None], _NO_SYMBOL)
    if isinstance(target, NextTarget):
        told = torch.arange(target._bytes_BL.shape[1], device=target.device) < target._begins_B1 + patch
        target._bytes_BL.masked_fill_(~told, target.vocab_size - 1)


def _kept_slots(target: PatchTarget | NextTarget, committed: Committed) -> list[int]:
    """For each cache row, how many slots the next forward finds as they must be."""
    patch = target.patch
    if isinstance(target, PatchTarget):
        return [
            (patch + prompt) // patch + (length - prompt) // patch - 1
            for prompt, length in zip(committed.prompts, committed.lengths, strict=True)
        ]
    # A window of stream s in slot t ends at byte s + P t + P - 1 of BOS and text; the last byte's is yet to be read.
    return [max(0, (length + patch - 1 - s) // patch) for length in committed.lengths for s in range(patch)]


def check_near_ties(
    target: Target,
    prompts: Sequence[NDArray[Any]],
    symbols: Sequence[NDArray[Any]],
    *,
    ulps: float = 4.0,
    dtype: torch.dtype = torch.bfloat16,
) -> Report:
    """Greedy output of low precision is right up to ties: replayed, each symbol is nearly the argmax.

    In low precision a forward of one state and one of several round differently, so greedy outputs with and without
    drafts may part where two logits are nearly equal. This replays it one unit at a time and tells a tie from a bug.
    Figures: symbols, those that were not the argmax (the first of equals), the first such position, and the worst
    margin in logits and in units of the last place.

    Args:
        target: of the same model, plain.
        prompts: of each row.
        symbols: what was generated after each.
        ulps: margin, in units of the last place of ``dtype`` of the row's largest logit.
        dtype: the precision that the model ran in.
    """

    def body(findings: Findings) -> None:
        unit, device = target.unit, target.device
        longest = max(len(row) for row in symbols)
        table = np.zeros((len(symbols), longest + unit), dtype=np.int64)
        for row, told in enumerate(symbols):
            table[row, : len(told)] = told
        lengths = np.array([len(row) for row in symbols])
        with torch.inference_mode():
            block = target.start(prompts, longest, 0)
            for begin in range(0, longest, unit):
                emitted = torch.from_numpy(table[:, begin : begin + unit]).to(device)
                for n in range(unit):
                    logits = block.logits(emitted[:, None, :n])[:, 0].float()
                    _judge_margins(findings, logits, emitted[:, n], begin + n, lengths, ulps, dtype)
                if begin + unit < longest:
                    counts = np.where(lengths > begin + unit, unit, 0)
                    block = target.advance(emitted, torch.from_numpy(counts).to(device), emitted[:, :0])

    return reporting("near ties", body, NOTHING)


def _judge_margins(
    findings: Findings,
    logits: Tensor,
    symbols: Tensor,
    position: int,
    lengths: NDArray[np.int64],
    ulps: float,
    dtype: torch.dtype,
) -> None:
    largest = logits.abs().amax(-1).log2().floor().exp2() * torch.finfo(dtype).eps
    margins = logits.amax(-1) - logits.gather(-1, symbols[:, None])[:, 0]
    figures, argmax = findings.figures, logits.argmax(-1)
    for row in np.flatnonzero(lengths > position).tolist():
        margin, in_ulps = float(margins[row]), float(margins[row] / largest[row])
        findings.case()
        findings.highest("worst", margin)
        findings.highest("worst_ulps", in_ulps)
        if symbols[row] != argmax[row]:
            figures["not_argmax"] = figures.get("not_argmax", 0) + 1
            findings.lowest("first", position)
        findings.require(
            in_ulps <= ulps,
            f"row {row}, symbol {position}: {margin:.3g} below the argmax, {in_ulps:.1f} units of the last place,"
            f" expected at most {ulps:g}",
        )
