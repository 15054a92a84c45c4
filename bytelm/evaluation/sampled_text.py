"""What a model writes when its symbols are drawn: how much of it is no text, and how well drafts hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bytelm.hub import LanguageModel
from bytelm.model.targets import NextTarget, PatchTarget


@dataclass(frozen=True)
class Undecodable:
    """How much of drawn output is no text.

    Attributes:
        characters: whole characters.
        pieces: pieces that are none, each shown as U+FFFD.
    """

    characters: int
    pieces: int

    @property
    def share(self) -> float:
        """Pieces over characters and pieces; 0 where there is neither."""
        return self.pieces / (self.characters + self.pieces) if self.pieces else 0.0


def measure_undecodable(
    lm: LanguageModel, prompts: Sequence[str], law: str | None = None, *, max_new_tokens: int = 256, seed: int = 0
) -> Undecodable:
    """Continue the prompts at temperature 1, without truncation, and count.

    A character that the limit cuts is not counted; nothing ends before the limit.

    Args:
        lm: a language model.
        prompts: at least one.
        law: as for ``lm.generate``.
        max_new_tokens: symbols each.
        seed: of the draws.
    """
    out = lm.generate(
        prompts, law=law, draft="none", do_sample=True, seed=seed, max_new_tokens=max_new_tokens, eos_token_id=()
    )
    pieces = sum(text.count("\ufffd") for text in out.texts)
    return Undecodable(out.num_chars, pieces)


@dataclass(frozen=True)
class Acceptance:
    """How well one drafter's symbols held under one law, temperature and rule.

    Attributes:
        law: that was decoded.
        draft: the drafter.
        temperature: 0 for greedy.
        verify: the rule.
        judged_at: for each place of a draft, drafts compared with the law's symbol.
        accepted_at: for each place, drafts that held.
        symbols_per_forward: of live rows, prefill included.
        chars_per_forward: the same in characters.
    """

    law: str
    draft: str
    temperature: float
    verify: str
    judged_at: tuple[int, ...]
    accepted_at: tuple[int, ...]
    symbols_per_forward: float
    chars_per_forward: float

    @property
    def at(self) -> tuple[float | None, ...]:
        """For each place the share of judged drafts that held; None where none was judged."""
        return tuple(a / j if j else None for a, j in zip(self.accepted_at, self.judged_at, strict=True))


def measure_acceptance(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    temperatures: Sequence[float] = (0.0, 0.7, 1.0),
    rules: Sequence[str] = ("exact", "rejection"),
    drafts: Sequence[str] = ("heads", "lookup"),
    max_new_tokens: int = 128,
    seed: int = 0,
) -> list[Acceptance]:
    """Every law with every drafter that it has, at every temperature and rule.

    ``heads`` under ``next`` are heads 2 … K, which speculate on the next bytes; under ``chain`` they are the next-patch
    module, where the model has one. At temperature 0 rules do not differ, and the first one alone is measured.

    Args:
        lm: a language model.
        prompts: at least one; continued together.
        temperatures: 0 for greedy.
        rules: names that ``verify`` takes.
        drafts: ``heads``, ``lookup``.
        max_new_tokens: symbols each; nothing ends before.
        seed: of the draws.
    """
    found = []
    for law in lm.laws:
        target = lm.make_target(law)
        for draft in drafts:
            if draft == "heads" and not _can_guess(target):
                continue
            for temperature in temperatures:
                for rule in rules if temperature else rules[:1]:
                    options: dict[str, Any] = {"law": law, "draft": draft, "verify": rule, "seed": seed}
                    options |= {"do_sample": temperature > 0, "temperature": temperature or 1.0}
                    out = lm.generate(prompts, max_new_tokens=max_new_tokens, eos_token_id=(), **options)
                    stats = out.stats
                    found.append(
                        Acceptance(
                            law,
                            draft,
                            temperature,
                            rule,
                            stats.judged_at,
                            stats.accepted_at,
                            stats.symbols_per_forward,
                            out.chars_per_forward,
                        )
                    )
    return found


def _can_guess(target: PatchTarget | NextTarget) -> bool:
    return target.max_guess > 0
