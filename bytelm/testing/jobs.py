"""What a decoder under test is asked, and what it answers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from bytelm.testing.toy import ToyLaw


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One batch to decode, and how to draft. Drafting may change ``Answer.forwards`` and nothing else.

    Attributes:
        law: the target model.
        prompts: one row each, of at least one symbol.
        max_new: exact length of a row that no stop ends.
        seeds: one for each row, which must decide that row's noise alone.
        temperature: 0 for greedy decoding, the first of equal logits.
        top_k: symbols of each law that may be drawn; None for all.
        stops: sequences of symbols; the first to be complete among a row's generated symbols ends the row and stays.
        num_draft: N, symbols to draft for each forward; 0 for plain decoding.
        draft_law: the model to draft with.
        proposals: instead of it, for each row, the symbol to propose at each position of the output.
    """

    law: ToyLaw
    prompts: tuple[tuple[int, ...], ...]
    max_new: int
    seeds: tuple[int, ...]
    temperature: float = 0.0
    top_k: int | None = None
    stops: tuple[tuple[int, ...], ...] = ()
    num_draft: int = 0
    draft_law: ToyLaw | None = None
    proposals: tuple[tuple[int, ...], ...] | None = None

    def alone(self, row: int) -> "Job":
        """This row in a batch of its own."""
        told = None if self.proposals is None else self.proposals[row : row + 1]
        prompts, seeds = self.prompts[row : row + 1], self.seeds[row : row + 1]
        return dataclasses.replace(self, prompts=prompts, seeds=seeds, proposals=told)

    def plain(self) -> "Job":
        """The same without drafting."""
        return dataclasses.replace(self, num_draft=0, draft_law=None, proposals=None)


@dataclasses.dataclass(frozen=True)
class Answer:
    """One row of what a decoder gave.

    Attributes:
        symbols: the generated ones, the stop's included.
        finish: why it ended.
        nats: -log p of each symbol under the law itself, before temperature and truncation; None if not told.
        pieces: the symbols as they were streamed; None if they were not.
        forwards: of the target while the row was live, the prefill included; None if not told.
    """

    symbols: tuple[int, ...]
    finish: Literal["length", "stop"]
    nats: tuple[float, ...] | None = None
    pieces: tuple[tuple[int, ...], ...] | None = None
    forwards: int | None = None


Decoder = Callable[[Job], list[Answer]]
"""A decoder under test: one answer for each prompt."""

Capability = Literal["sampling", "top_k", "seeds", "batch", "stops", "model", "proposals"]
"""What a decoder may lack: drawing at a temperature, truncation, the same output for the same seed whatever was
drafted, several rows, stops, drafting with a model, drafting what it is told."""


def proposals(
    plan: str, answers: Sequence[Sequence[int]], vocab: int, seed: int = 0, ahead: int = 32
) -> tuple[tuple[int, ...], ...]:
    """Proposals of a plan, for rows of which plain decoding gave ``answers``.

    Args:
        plan: ``random``; or a pattern of ``1`` and ``0`` that is gone round, 1 for a proposal that must be accepted and
            0 for one that must not: ``1`` is an oracle and ``0`` always wrong.
        answers: symbols of each row.
        vocab: V, at least 2.
        seed: of ``random``.
        ahead: proposals after the last symbol of the answer.
    """
    rows = []
    for row, answer in enumerate(answers):
        told = [*answer, *[0] * ahead]
        if plan == "random":
            rows.append(tuple((7 * i * i + 13 * i + 5 * row + seed) % 31 % vocab for i in range(len(told))))
        else:
            pattern = [plan[i % len(plan)] == "1" for i in range(len(told))]
            rows.append(tuple(s if right else (s + 1) % vocab for s, right in zip(told, pattern, strict=True)))
    return tuple(rows)
