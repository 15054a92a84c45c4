"""What one forward of a byte model made known: states, and the laws that its heads read from them."""

import dataclasses

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from bytelm.heads import ChainedHeads
from bytelm.model.byte_lm import ByteLM
from bytelm.nn import native
from bytelm.shapes import Counts, Logits, Symbols


@dataclasses.dataclass(eq=False)
class StatesBlock:
    """R states per row, each after a window of P bytes; the heads give the law of the ``unit`` bytes after each.

    Attributes:
        model: its heads are used.
        unit: P under ``product`` and ``chain``, 1 under ``next``.
        h_BRD: the states.
        windows_BR_: what the heads read beside it, whose last P bytes are the window that ends at each state.
        num_states: R.
    """

    model: ByteLM
    unit: int
    h_BRD: Float[Tensor, "B R D"]
    windows_BR_: Int[Tensor, "B R _"]
    num_states: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.num_states = self.h_BRD.shape[1]

    def logits(self, prefix: Int[Tensor, "B R _"]) -> Float[Tensor, "B R V"]:
        """Head N + 1 of every state after N symbols of its unit (independent heads do not look at them)."""
        return self.model.heads.step(self.h_BRD, self.windows_BR_, prefix)

    def draw(
        self, noise_BNV: Float64[Tensor, "B N V"] | None, temperature: float
    ) -> tuple[Int[Tensor, "B R _"], Float64[Tensor, "B R _"]] | None:
        """The units of all states at once, where the heads can; see :class:`bytelm.decoding.protocols.DrawingBlock`."""
        heads = self.model.heads
        if not isinstance(heads, ChainedHeads):
            return None
        none = self.windows_BR_[..., :0]
        found = heads.draw(self.h_BRD, self.windows_BR_, none, self.unit, noise_BNV, temperature)
        return None if found is None else found[:2]

    def select(self, rows: Int[Tensor, " _"]) -> "StatesBlock":
        """The block of these rows."""
        return StatesBlock(self.model, self.unit, self.h_BRD[rows], self.windows_BR_[rows])

    def join(self, other: "StatesBlock") -> "StatesBlock":
        """The rows of this block and then those of another; see :class:`bytelm.decoding.protocols.Block`."""
        most = max(self.num_states, other.num_states)
        h_BRD = torch.cat((widened(self.h_BRD, most), widened(other.h_BRD, most)))
        windows_BR_ = torch.cat((widened(self.windows_BR_, most), widened(other.windows_BR_, most)))
        return StatesBlock(self.model, self.unit, h_BRD, windows_BR_)

    def guess(self, emitted: Symbols, counts: Counts) -> "HeadsGuess | NextPatchGuess | DraftHeadsGuess":
        """The model's own guess of what follows the first ``counts[b]`` of ``emitted``, which came from this block."""
        units = emitted.unflatten(1, (-1, self.unit))
        h_BD, window_B_, unit = _at_last(counts, self.unit, self.h_BRD, self.windows_BR_, units)
        if self.model.draft_heads is not None:
            return DraftHeadsGuess(self.model, h_BD)
        guess = NextPatchGuess if self.unit == self.model.config.patch else HeadsGuess
        return guess(self.model, h_BD, window_B_, unit)


def _at_last(counts: Counts, unit: int, *of_states: Tensor) -> list[Tensor]:
    """What (B, R, …) has at the last of the units that hold the first ``counts[b]`` symbols."""
    if len(counts) == 1 and counts.is_cpu and not native.is_watched():  # a view: what indices cost is a third of a head
        place = int(counts.item()) // unit - 1
        return [part[:, place] for part in of_states]
    last = torch.arange(len(counts), device=counts.device), counts // unit - 1
    return [part[last] for part in of_states]


def widened(states_BR_: Tensor, num_states: int) -> Tensor:
    """(B, R, …) with the last state repeated until there are ``num_states``."""
    missing = num_states - states_BR_.shape[1]
    return torch.cat((states_BR_, states_BR_[:, -1:].expand(-1, missing, *states_BR_.shape[2:])), dim=1)


class HeadsGuess:
    """``next``: heads 2 … K of the state that gave the last symbol."""

    def __init__(self, model: ByteLM, h_BD: Float[Tensor, "B D"], window_B_: Symbols, last: Symbols) -> None:
        self.model, self.h_BD, self.window_B_, self.last = model, h_BD, window_B_, last

    def logits(self, drafted: Symbols) -> Logits:
        """Head N + 2 after the last symbol and N drafted ones."""
        return self.model.heads.step(self.h_BD, self.window_B_, torch.cat((self.last, drafted), dim=1))

    def draw(self, num: int, noise_BNV: Float64[Tensor, "B _ V"] | None, temperature: float) -> Symbols | None:
        """The symbols that ``num`` heads draw, each given those before it; None where they cannot at once."""
        heads = self.model.heads
        if not isinstance(heads, ChainedHeads):
            return None
        inputs = (self.h_BD[:, None], self.window_B_[:, None], self.last[:, None])
        found = heads.draw(*inputs, num, noise_BNV, temperature)
        return None if found is None else found[0][:, 0]


class DraftHeadsGuess:
    """Tokens, ``next``: the draft heads on the state that gave the last one."""

    def __init__(self, model: ByteLM, h_BD: Float[Tensor, "B D"]) -> None:
        assert model.draft_heads is not None
        self._logits_BKV = model.draft_heads(h_BD, model.lm_head)

    def logits(self, drafted: Symbols) -> Logits:
        """Head N + 1 after N drafted symbols, at which it does not look."""
        return self._logits_BKV[:, drafted.shape[1]]


class NextPatchGuess:
    """``chain``, and ``next`` of one-symbol patches: the state after the last patch as the next-patch heads guess it,
    then the model's heads on it.
    """

    def __init__(self, model: ByteLM, h_BD: Float[Tensor, "B D"], window_B_: Symbols, patch_BP: Symbols) -> None:
        assert model.next_patch is not None
        self.model, self.next_patch = model, model.next_patch
        self.patch = model.config.patch
        self._h_BD, self._window_B_ = self.next_patch(h_BD, patch_BP), _moved_on(window_B_, patch_BP)
        self._patches = 0

    def logits(self, drafted: Symbols) -> Logits:
        """The law's heads on the guessed state; whole drafted patches move it on."""
        patches, inside = drafted.shape[1] // self.patch, drafted.shape[1] % self.patch
        if patches > self._patches:
            patch_BP = drafted[:, -self.patch :]
            self._window_B_ = _moved_on(self._window_B_, patch_BP)
            self._h_BD, self._patches = self.next_patch(self._h_BD, patch_BP), patches
        return self.model.heads.step(self._h_BD, self._window_B_, drafted[:, drafted.shape[1] - inside :])


def _moved_on(window_B_: Symbols, patch_BP: Symbols) -> Symbols:
    """What the heads read after one patch more."""
    return torch.cat((window_B_[:, patch_BP.shape[1] :], patch_BP), dim=1)
