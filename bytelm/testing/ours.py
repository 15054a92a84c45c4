"""This package's own decoder under the kit: a target of a toy law, and the adapter."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bytelm.decoding import (
    AutoDrafter,
    Drafter,
    HeadsDrafter,
    LookupDrafter,
    ModelDrafter,
    Sampling,
    SequenceStop,
    Target,
    decode,
)
from bytelm.decoding.rules import RULES, acceptance, residual
from bytelm.model.blocks import widened
from bytelm.shapes import Counts, Logits, Symbols
from bytelm.testing.distribution import check_algebra
from bytelm.testing.drafters import ProposalDrafter
from bytelm.testing.jobs import Answer, Job
from bytelm.testing.reports import NOTHING, Lacks, Report
from bytelm.testing.toy import ORDER, UNWRITTEN, ToyLaw

_AnyNumber = Int[Tensor, "B _"]


class ToyTarget:
    """A toy law as a :class:`bytelm.decoding.Target`, with a cache of symbols by position.

    A forward writes the last committed unit and the draft, and sees nothing but the cache: a slot that was not
    overwritten shows, and one that nobody wrote gives NaN. What the loop hands over is held to the protocol.

    Args:
        law: the target model.
        unit: symbols that a state knows the law of.
        draft_law: what :class:`~bytelm.decoding.HeadsDrafter` guesses with; None for blocks that cannot guess.
        fixed_shapes: as if compiled.
    """

    device = torch.device("cpu")

    def __init__(
        self, law: ToyLaw, unit: int = 1, draft_law: ToyLaw | None = None, *, fixed_shapes: bool = False
    ) -> None:
        self.law, self.unit, self.draft_law, self.fixed_shapes = law, unit, draft_law, fixed_shapes
        self.vocab_size = law.vocab
        self.max_guess = 0 if draft_law is None else 1 << 30
        self.forwards = 0
        self.slots_BS: Int[Tensor, "B S"]
        self.ends_B: Int[Tensor, " B"]
        self._finished_B: Tensor
        self._max_draft = 0

    def start(self, prompts: Sequence[NDArray[Any]], num_new: int | Sequence[int], max_draft: int) -> "ToyBlock":
        """Write the prompts."""
        lengths = [len(prompt) for prompt in prompts]
        longest = int((np.array(lengths) + np.asarray(num_new)).max())
        slots = np.full((len(prompts), ORDER + longest + max_draft + 1), UNWRITTEN, dtype=np.int64)
        slots[:, :ORDER] = 0
        for row, prompt in enumerate(prompts):
            slots[row, ORDER : ORDER + len(prompt)] = prompt
        self.slots_BS, self.ends_B = torch.from_numpy(slots), ORDER + torch.tensor(lengths)
        self._finished_B = torch.zeros(len(prompts), dtype=torch.bool)
        self._max_draft = max_draft
        return self._block(0)

    def advance(self, emitted: Symbols, counts: Counts, draft: _AnyNumber) -> "ToyBlock":
        """Commit, then read the last committed unit and the draft."""
        self._check(emitted, counts, draft)
        unit = self.unit
        self.ends_B = self.ends_B + counts
        last = (counts - unit).clamp(min=0)[:, None] + torch.arange(unit)
        self._write((self.ends_B - unit).clamp(min=0), torch.cat((emitted.gather(1, last), draft), dim=1))
        return self._block(draft.shape[1])

    def select(self, rows: Int[Tensor, " _"]) -> None:
        """Keep these rows."""
        self.slots_BS, self.ends_B = self.slots_BS[rows], self.ends_B[rows]
        self._finished_B = self._finished_B[rows]

    def new(self) -> "ToyTarget":
        """A target without rows."""
        other = copy.copy(self)
        other.forwards = 0
        return other

    def join(self, other: "ToyTarget") -> None:
        """Take up the rows of another."""
        width = max(self.slots_BS.shape[1], other.slots_BS.shape[1])
        parts = (self.slots_BS, other.slots_BS)
        self.slots_BS = torch.cat(
            [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=UNWRITTEN) for part in parts]
        )
        self.ends_B = torch.cat((self.ends_B, other.ends_B))
        self._finished_B = torch.cat((self._finished_B, other._finished_B))
        self.forwards += other.forwards

    def rewind(self, counts: Counts) -> None:
        """Forget the last symbols."""
        assert not (counts % self.unit).any()
        self.ends_B = self.ends_B - counts

    def _check(self, emitted: Symbols, counts: Counts, draft: _AnyNumber) -> None:
        assert emitted.dtype == draft.dtype == torch.int64
        assert 0 <= int(emitted.min()) <= int(emitted.max()) < self.vocab_size
        assert not draft.numel() or 0 <= int(draft.min()) <= int(draft.max()) < self.vocab_size
        assert not (counts % self.unit).any()
        assert draft.shape[1] % self.unit == 0
        assert draft.shape[1] <= self._max_draft
        assert int(counts.max()) <= emitted.shape[1]
        assert ((counts == 0) | ~self._finished_B).all(), "a finished row came back"
        self._finished_B = counts == 0
        assert not self._finished_B.all(), "a needless forward"

    def _write(self, begins_B: Tensor, symbols: Symbols) -> None:
        columns = begins_B[:, None] + torch.arange(symbols.shape[1])
        self.slots_BS.scatter_(1, columns.clamp(max=self.slots_BS.shape[1] - 1), symbols)

    def _block(self, num_drafted: int) -> "ToyBlock":
        self.forwards += 1
        ends_BR = self.ends_B[:, None] + torch.arange(0, num_drafted + 1, self.unit)
        places_BRN = (ends_BR[..., None] + torch.arange(-ORDER, 0)).clamp(max=self.slots_BS.shape[1] - 1)
        rows_B = torch.arange(len(self.ends_B))
        return ToyBlock(self.law, self.draft_law, self.unit, self.slots_BS[rows_B[:, None, None], places_BRN])


class ToyBlock:
    """What one forward over the cache saw: the context of each state (B, R, 2)."""

    def __init__(self, law: ToyLaw, draft_law: ToyLaw | None, unit: int, contexts: Int[Tensor, "B R _"]) -> None:
        self.law, self.draft_law, self.unit, self.contexts = law, draft_law, unit, contexts
        self.num_states = contexts.shape[1]

    def logits(self, prefix: Int[Tensor, "B R _"]) -> Float[Tensor, "B R V"]:
        """The law after each context and the symbols of the unit so far."""
        assert prefix.shape[2] < self.unit
        return self.law.batch(torch.cat((self.contexts, prefix), dim=2))

    def select(self, rows: Int[Tensor, " _"]) -> "ToyBlock":
        """The block of these rows."""
        return ToyBlock(self.law, self.draft_law, self.unit, self.contexts[rows])

    def join(self, other: "ToyBlock") -> "ToyBlock":
        """The rows of both."""
        most = max(self.num_states, other.num_states)
        contexts = torch.cat((widened(self.contexts, most), widened(other.contexts, most)))
        return ToyBlock(self.law, self.draft_law, self.unit, contexts)

    def guess(self, emitted: Symbols, counts: Counts) -> "ToyGuess":
        """A guess by the draft law."""
        assert self.draft_law is not None
        symbols = torch.cat((self.contexts[:, 0], emitted), dim=1)
        return ToyGuess(self.draft_law, symbols.gather(1, counts[:, None] + torch.arange(ORDER)))


class ToyGuess:
    """The draft law after the committed symbols."""

    def __init__(self, law: ToyLaw, context: Symbols) -> None:
        self.law, self.context = law, context

    def logits(self, drafted: Symbols) -> Logits:
        """Logits of the symbol after the drafted ones."""
        return self.law.batch(torch.cat((self.context, drafted), dim=1))


@dataclasses.dataclass(frozen=True)
class Ours:
    """:func:`bytelm.decoding.decode` as a decoder under test.

    Args:
        draft_with: the drafter of jobs that draft with a model; ``lookup`` looks at the text instead, and ``auto``
            chooses between look-up, the model and nothing.
        verify: name of the rule.
        unit: of the toy target.
        fixed_shapes: of the toy target.
        make_target: another target for a job, whose laws then are not the job's.
        make_small: the target to draft with of ``draft_with="model"``.
    """

    draft_with: Literal["model", "heads", "lookup", "auto"] = "model"
    verify: str = "exact"
    unit: int = 1
    fixed_shapes: bool = False
    make_target: Callable[[Job], Target] | None = None
    make_small: Callable[[Job], Target] | None = None

    @property
    def lacks(self) -> Lacks:
        """What is not promised."""
        if RULES[self.verify].coupled:
            return NOTHING
        return {"seeds": f"under the rule {self.verify} the symbols of a seed depend on the drafts"}

    def __call__(self, job: Job) -> list[Answer]:
        """Decode."""
        pieces: list[list[tuple[int, ...]]] = [[] for _ in job.prompts]
        generation = decode(
            self._target(job),
            [np.array(prompt, dtype=np.uint8 if job.law.vocab <= 256 else np.int64) for prompt in job.prompts],
            max_new=job.max_new,
            sampling=Sampling(do_sample=job.temperature > 0, temperature=job.temperature, top_k=job.top_k),
            stops=[SequenceStop(stop) for stop in job.stops],
            drafter=self._drafter(job),
            verify=self.verify,
            seed=job.seeds,
            streamer=lambda row, symbols: pieces[row].append(tuple(symbols.tolist())),
        )
        return [
            Answer(
                tuple(generation.symbols[row].tolist()),
                "stop" if generation.finish[row] == "stop" else "length",
                tuple(generation.nats[row].tolist()),
                tuple(pieces[row]),
                generation.stats.row_forwards[row],
            )
            for row in range(len(job.prompts))
        ]

    def _target(self, job: Job) -> Target:
        if self.make_target is not None:
            return self.make_target(job)
        return ToyTarget(job.law, self.unit, job.draft_law, fixed_shapes=self.fixed_shapes)

    def _drafter(self, job: Job) -> Drafter | None:
        """The drafter that the job asks for, its drafts rounded up to whole units."""
        num = -(-job.num_draft // self.unit) * self.unit
        if num == 0:
            return None
        if job.proposals is not None:
            return ProposalDrafter(job.proposals, num)
        match self.draft_with:
            case "heads":
                return HeadsDrafter(num)
            case "lookup":
                return LookupDrafter(num, min_match=2)
            case "model":
                return ModelDrafter(self._small(job), num)
            case "auto":
                return AutoDrafter([LookupDrafter(num, min_match=2), ModelDrafter(self._small(job), num)])

    def _small(self, job: Job) -> Target:
        if self.make_small is not None:
            return self.make_small(job)
        assert job.draft_law is not None
        return ToyTarget(job.draft_law)


def check_our_algebra() -> Report:
    """:func:`check_algebra` of the rule ``rejection``."""

    def through_torch(
        function: Callable[[Tensor, Tensor], Tensor],
    ) -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
        return lambda p, q: function(torch.from_numpy(p), torch.from_numpy(q)).numpy()

    return check_algebra(through_torch(acceptance), through_torch(residual))
