"""Rules that turn the law's logits, noise and a draft into symbols. One is the contract; two are there for study."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bytelm.errors import DecodingError

Laws = Float[Tensor, "B R V"]
"""Log-probabilities of one symbol of each state's unit, up to a number for each state."""

UnitSymbols = Int[Tensor, "B R"]


class Proposal(NamedTuple):
    """The drafted symbol that each state is to judge, at one place of its unit.

    Attributes:
        symbols: drafted symbols; the last state has none, and a filler here.
        log_q: log of the distribution that each was drawn from; None where it was not drawn.
        standing: states whose unit has followed the draft so far; never the last one.
    """

    symbols: UnitSymbols
    log_q: Laws | None
    standing: Bool[Tensor, "B R"]


class Noise(NamedTuple):
    """The noise of one place: Gumbel noise to emit with; the others only where the rule asks for them."""

    emission: Laws
    acceptance: Float[Tensor, "B R"] | None = None
    residual: Laws | None = None


def coupled(log_p: Laws, noise: Noise, proposal: Proposal) -> UnitSymbols:
    """argmax(log p + g): the law's own symbol, to which the draft is not even shown.

    By the Gumbel-max theorem it has the distribution p. A draft made from other logits q with the same noise is that
    symbol with probability at least (1 - TV) / (1 + TV), TV the total variation of p and q: drafter-invariant coupling,
    Daliri, Musco and Suresh (arXiv 2408.07978).
    """
    return (log_p + noise.emission).argmax(-1)


def acceptance(p: Float[Tensor, "*B"], q: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """min(1, p / q), the chance that a drafted symbol stays (Leviathan, Kalman and Matias 2023, algorithm 1)."""
    return torch.where(q > 0, (p / q).clamp(max=1), torch.ones_like(p))


def residual(p: Float[Tensor, "*B V"], q: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
    """max(0, p - q), normalised: what is drawn instead of a rejected symbol (the same paper, algorithm 1).

    Where p <= q everywhere, which rounding alone can bring about after a rejection, it is p.
    """
    difference = (p - q).clamp(min=0)
    mass = difference.sum(-1, keepdim=True)
    return torch.where(mass > 0, difference / mass, p)


def rejection(log_p: Laws, noise: Noise, proposal: Proposal) -> UnitSymbols:
    """Keep a drafted symbol with probability min(1, p / q), else draw from the residual; without a draft, draw from p.

    Leviathan, Kalman and Matias 2023 (arXiv 2211.17192). Exact in distribution; the symbols depend on the drafts.
    """
    assert noise.acceptance is not None
    assert noise.residual is not None
    p = log_p.double().softmax(-1)
    drafted = proposal.symbols[..., None]
    log_q = proposal.log_q
    q = torch.zeros_like(p).scatter_(-1, drafted, 1.0) if log_q is None else log_q.double().exp()
    kept = noise.acceptance < acceptance(p.gather(-1, drafted), q.gather(-1, drafted)).squeeze(-1)
    instead = (residual(p, q).log() + noise.residual).argmax(-1)
    return torch.where(
        proposal.standing, torch.where(kept, proposal.symbols, instead), (log_p + noise.emission).argmax(-1)
    )


TYPICAL_EPSILON, TYPICAL_DELTA = 0.09, 0.3


def typical(log_p: Laws, noise: Noise, proposal: Proposal) -> UnitSymbols:
    """Keep a drafted symbol that is typical, p(x) > min(epsilon, delta exp(-H(p))); else the law's own symbol.

    Cai et al. 2024 (Medusa, arXiv 2401.10774, section 2.3.1), with epsilon 0.09 and delta 0.3. Lossy: it changes the
    law.
    """
    log_p = log_p.log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)
    drafted = p.gather(-1, proposal.symbols[..., None]).squeeze(-1)
    kept = drafted > (TYPICAL_DELTA * (-entropy).exp()).clamp(max=TYPICAL_EPSILON)
    return torch.where(proposal.standing & kept, proposal.symbols, (log_p + noise.emission).argmax(-1))


class Rule(NamedTuple):
    """One way to turn a law, noise and a draft into symbols.

    Attributes:
        judge: ``(log_p, noise, proposal) -> symbols``; a drafted symbol is accepted where it is the symbol.
        exact: whether the symbols have the law, whatever was drafted.
        coupled: whether the symbols are the same, whatever was drafted; drafters then use the noise of emission.
    """

    judge: Callable[[Laws, Noise, Proposal], UnitSymbols]
    exact: bool
    coupled: bool


RULES: dict[str, Rule] = {
    "exact": Rule(coupled, exact=True, coupled=True),
    "rejection": Rule(rejection, exact=True, coupled=False),
    "typical": Rule(typical, exact=False, coupled=True),
}
"""By the name that ``verify`` takes."""


def get_rule(verify: str) -> Rule:
    """The rule of this name.

    Raises:
        DecodingError: there is none.
    """
    if verify not in RULES:
        raise DecodingError(f"verify: found {verify!r}, expected one of {', '.join(RULES)}")
    return RULES[verify]
