"""Drafters as users name them."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from bytelm.decoding import AutoDrafter, Drafter, HeadsDrafter, LookupDrafter, ModelDrafter, NoDrafter
from bytelm.decoding.drafters.auto import Memory
from bytelm.errors import DecodingError
from bytelm.model.ends import Law
from bytelm.model.targets import NextTarget, PatchTarget
from bytelm.tokenizer import BaseTokenizer

NAMES = ("auto", "none", "heads", "lookup")

_LOOKUP = 16
_GUESSED_PATCHES = 2
_SMALL_PATCHES, _SMALL_SYMBOLS = 2, 4


@runtime_checkable
class SmallModel(Protocol):
    """A language model that can draft."""

    tokenizer: BaseTokenizer[Any]

    @property
    def laws(self) -> tuple[Law, ...]:
        """Laws it can be asked for."""
        ...

    def make_target(self, law: Law, *, compiled: bool = False) -> PatchTarget | NextTarget:
        """It under one law."""
        ...


def make_drafter(
    draft: Any, tokenizer: BaseTokenizer[Any], target: PatchTarget | NextTarget, num: int | None, memory: Memory
) -> Drafter:
    """The drafter that ``draft`` names, for the law of ``target``.

    Args:
        draft: one of :data:`NAMES`, a language model of the same encoding or BPE, a
            :class:`~bytelm.decoding.Drafter`, or several of these, of which each round uses the one that pays.
        tokenizer: of the model that is decoded.
        num: symbols to draft at most; None for what suits the drafter.
        memory: what ``auto`` has learnt of speed so far.
    Raises:
        DecodingError: no such drafter, or one that this model and law do not have.
    """
    if num is not None and num < 1:
        raise DecodingError(f"num_draft_tokens: found {num}, expected at least 1")
    match draft:
        case "none":
            return NoDrafter()
        case "heads":
            return _heads(target, num)
        case "lookup":
            return LookupDrafter(_whole(num or _LOOKUP, target.unit))
        case "auto":
            heads = [_heads(target, num)] if target.max_guess else []
            return AutoDrafter([*heads, LookupDrafter(_whole(num or _LOOKUP, target.unit))], memory)
        case SmallModel():
            return _model(draft, tokenizer, target, num)
        case str():
            raise DecodingError(f"draft: found {draft!r}, expected one of {', '.join(NAMES)}, a model or a drafter")
        case Sequence():
            return AutoDrafter([make_drafter(item, tokenizer, target, num, memory) for item in draft], memory)
        case Drafter():
            return draft
    raise DecodingError(f"draft: found {type(draft).__name__}, expected a name, a model, a drafter or a list of these")


def _whole(num: int, unit: int) -> int:
    return max(unit, num - num % unit)


def _heads(target: PatchTarget | NextTarget, num: int | None) -> HeadsDrafter:
    if not target.max_guess:
        raise DecodingError("draft 'heads': this model and law have no heads to draft with, expected 'auto' or 'none'")
    usual = target.max_guess if target.unit == 1 else _GUESSED_PATCHES * target.unit
    return HeadsDrafter(_whole(min(num or usual, target.max_guess), target.unit))


def _model(
    small: SmallModel, tokenizer: BaseTokenizer[Any], target: PatchTarget | NextTarget, num: int | None
) -> ModelDrafter:
    if small.tokenizer.digest != tokenizer.digest:
        raise DecodingError(
            f"draft: found a model of the encoding {small.tokenizer.name} ({small.tokenizer.digest[:12]}), expected"
            f" {tokenizer.name} ({tokenizer.digest[:12]})"
        )
    patches = [small.make_target(law) for law in small.laws if law != "next"]
    suits = next((one for one in patches if one.unit == target.unit), None)
    usual = _SMALL_PATCHES * target.unit if target.unit > 1 else _SMALL_SYMBOLS
    return ModelDrafter(suits or small.make_target("next"), _whole(num or usual, target.unit))
