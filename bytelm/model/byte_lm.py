"""The whole forward pass: windows of P bytes in, states after each window out, heads on the states."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn
from torch.func import functional_call

from bytelm.heads import ChainedHeads, DraftHeads, IndependentHeads, LMHead, NextPatch, StateMLP
from bytelm.model.config import ModelConfig
from bytelm.model.documents import Boundaries
from bytelm.nn.block import ParallelBlock, SequentialBlock
from bytelm.nn.document_view import DocumentView
from bytelm.nn.kv_cache import CacheView, KVCache
from bytelm.nn.merger import ConcatMerger, TokenEmbedding
from bytelm.nn.native_body import run_blocks
from bytelm.nn.ngram import NgramTables
from bytelm.nn.windows import with_windows_before
from bytelm.shapes import Hidden, Windows


def cross_entropy(logits_BTKV: Float[Tensor, "B T K V"], targets_BTK: Int[Tensor, "B T K"]) -> Float[Tensor, "B T K"]:
    """``-log softmax(logits)[target]`` in float32, nats."""
    nats = F.cross_entropy(logits_BTKV.flatten(0, 2).float(), targets_BTK.flatten(), reduction="none")
    return nats.view(targets_BTK.shape)


def soft_cross_entropy(
    logits_BTKV: Float[Tensor, "B T K V"], law_BTKV: Float[Tensor, "B T K V"]
) -> Float[Tensor, "B T K"]:
    """``-sum_v softmax(law)[v] log softmax(logits)[v]`` in float32, nats; no gradient reaches ``law``.

    The loss of a draft (Zhou et al. 2023, arXiv:2310.08461: forward Kullback-Leibler, plus the entropy of ``law``).
    """
    shares = law_BTKV.detach().flatten(0, 2).float().softmax(-1)
    nats = F.cross_entropy(logits_BTKV.flatten(0, 2).float(), shares, reduction="none")
    return nats.view(law_BTKV.shape[:-1])


def draft_nats(logits_BTKV: Float[Tensor, "B T K V"], law_BTV: Float[Tensor, "B T V"]) -> Float[Tensor, "B _ K"]:
    """:func:`soft_cross_entropy` of draft head k at state t and the model's own law at state t + k, nats.

    Of all states but the last K, after which there is no law for each head.
    """
    num_heads = logits_BTKV.shape[2]
    num_states = logits_BTKV.shape[1] - num_heads
    nats = [
        soft_cross_entropy(logits_BTKV[:, :num_states, [k]], law_BTV[:, k + 1 : k + 1 + num_states, None])
        for k in range(num_heads)
    ]
    return torch.cat(nats, dim=-1)


def _positions(windows_BTP: Windows, view: CacheView | DocumentView | None) -> Int[Tensor, "*_ T"]:
    """Patch positions of the windows: those of the view, else from 0."""
    return torch.arange(windows_BTP.shape[1], device=windows_BTP.device) if view is None else view.positions


def _with_windows_before(
    windows_BTP: Windows, positions: Int[Tensor, "*_ T"], view: CacheView | DocumentView | None, num: int
) -> Int[Tensor, "B T _"]:
    """Each window behind the ``num`` before it."""
    if not num:
        return windows_BTP
    if isinstance(view, CacheView):
        return torch.cat((view.before(num), windows_BTP), dim=-1)
    return with_windows_before(windows_BTP, None if view is None else positions, num)


class ByteLM(nn.Module):
    """Embed, merge, body, norm. Build one with :func:`bytelm.model.build.build_model`.

    Args:
        config: what it was built from.
        merger, position, blocks, norm, heads: the parts.
        next_patch: drafts the patches after the next one with the heads, or None.
        draft_heads: draft the tokens after the next one, or None.
        state_tables: n-gram tables that add to states before the last norm, or None.
        state_mlp: reads them there, too, or None.
    """

    def __init__(
        self,
        config: ModelConfig,
        merger: ConcatMerger | TokenEmbedding,
        position: nn.Module,
        blocks: Sequence[SequentialBlock | ParallelBlock],
        norm: nn.Module,
        heads: IndependentHeads | ChainedHeads | LMHead,
        next_patch: NextPatch | None = None,
        draft_heads: DraftHeads | None = None,
        state_tables: NgramTables | None = None,
        state_mlp: StateMLP | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.merger, self.position = merger, position
        self.blocks, self.norm, self.heads = nn.ModuleList(blocks), norm, heads
        self.next_patch = next_patch
        self.draft_heads = draft_heads
        self.state_tables, self.state_mlp = state_tables, state_mlp
        # Here, for torch.compile gives up on how they are found.
        self._num_windows_before_body = config.num_windows_before_body
        self._num_windows_before_heads = config.num_windows_before_heads

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def lm_head(self) -> LMHead:
        """The head of a model of tokens."""
        assert isinstance(self.heads, LMHead)
        return self.heads

    def forward(self, windows_BTP: Windows, view: CacheView | DocumentView | None = None) -> Hidden:
        """States after the last byte of each window.

        Args:
            windows_BTP: consecutive windows of each sequence; without a ``view`` they start at patch position 0.
            view: where in a cache the windows go, and what they see there; or which documents they are of.
        """
        positions = _positions(windows_BTP, view)
        if isinstance(view, CacheView):
            view.keep(windows_BTP)
        symbols_BTN = _with_windows_before(windows_BTP, positions, view, self._num_windows_before_body)
        x_BTD = run_blocks(self.blocks, self.position, self.merger(symbols_BTN, positions), positions, view)
        return self.norm(self._with_rows(x_BTD, symbols_BTN))

    def _with_rows(self, x_BTD: Hidden, symbols_BTN: Int[Tensor, "B T _"]) -> Hidden:
        """States, and what the rows of n-grams change in them."""
        if self.state_tables is None:
            return x_BTD
        sum_BTF = self.state_tables.sum_of_rows(symbols_BTN)
        added_BTD = self.state_tables.projection(sum_BTF)
        return x_BTD + added_BTD if self.state_mlp is None else x_BTD + added_BTD + self.state_mlp(x_BTD, sum_BTF)

    def read(
        self, bytes_BL: Integer[Tensor, "B L"], boundaries: Boundaries | None = None
    ) -> tuple[Hidden, Int[Tensor, "B T _"], Windows]:
        """States after every patch but the last, those patches, and for each the patch after it.

        Where n-grams of the heads are longer than a patch, each of those patches is behind as many before it as they
        reach into.

        Args:
            bytes_BL: T + 1 patches, starting at any byte of a text.
            boundaries: finds the documents that attention stays inside of; by default the row is one.
        """
        patches_BTP = bytes_BL.unflatten(1, (-1, self.config.patch)).long()
        windows, targets = patches_BTP[:, :-1], patches_BTP[:, 1:]
        view = None if boundaries is None else boundaries(windows)
        return self(windows, view), self.windows_of_heads(windows, view), targets

    def windows_of_heads(
        self, windows_BTP: Windows, view: CacheView | DocumentView | None = None
    ) -> Int[Tensor, "B T _"]:
        """What the heads read beside the states of :meth:`forward`, whose arguments these are: each window, behind
        those before it that their n-grams and matches reach into. A cache is to be asked after that forward.
        """
        positions = _positions(windows_BTP, view)
        return _with_windows_before(windows_BTP, positions, view, self._num_windows_before_heads)

    def predict(self, bytes_BL: Integer[Tensor, "B L"]) -> tuple[Float[Tensor, "B T K V"], Int[Tensor, "B T K"]]:
        """Logits of every head at every patch but the last, given the bytes before (teacher forcing), and the targets.

        ``bytes_BL`` is as for :meth:`read`.
        """
        h_BTD, windows, targets = self.read(bytes_BL)
        return self.heads(h_BTD, windows, targets), targets

    def predict_ahead(
        self, h_BTD: Hidden, windows_BT_: Int[Tensor, "B T _"], targets_BTP: Windows
    ) -> list[Float[Tensor, "B _ K V"]]:
        """Logits of the heads on guessed states, from what :meth:`read` gives (teacher forcing).

        Entry n - 1 of the list has the patches n ahead: the state after patch t, and the n patches that follow it, give
        the logits of patch t + n + 1, which is ``targets_BTP[:, t + n]``; so it is n positions shorter. Gradients reach
        ``next_patch`` alone.
        """
        assert self.next_patch is not None
        assert self.config.next_patch is not None
        frozen = {name: parameter.detach() for name, parameter in self.heads.named_parameters()}
        guess_BTD, logits = h_BTD.detach(), []
        for n in range(1, self.config.next_patch.depth + 1):
            windows, targets = windows_BT_[:, n:], targets_BTP[:, n:]
            guess_BTD = self.next_patch(guess_BTD[:, :-1], windows[..., -self.config.patch :])
            logits.append(functional_call(self.heads, frozen, (guess_BTD, windows, targets)))
        return logits

    def predict_drafts(
        self, tokens_BT: Integer[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T K V"], Float[Tensor, "B T V"]]:
        """Logits of the draft heads after each token, and the logits of the law there, which have no gradients."""
        assert self.draft_heads is not None
        with torch.no_grad():
            h_BTD = self(tokens_BT[..., None].long())
            law_BTV = self.lm_head.logits(h_BTD)
        return self.draft_heads(h_BTD, self.lm_head), law_BTV

    def patch_nats(self, bytes_BL: Integer[Tensor, "B L"]) -> Float[Tensor, "B T K"]:
        """Negative log-likelihood of each byte that :meth:`predict` predicts.

        Summed over K this is ``-log p(patch | bytes before)`` of ``chain`` or ``product``; column 0 alone is
        ``-log p(byte | bytes before)`` of ``next`` at one byte position in P.
        """
        return cross_entropy(*self.predict(bytes_BL))

    def new_cache(self, num_rows: int, capacity: int) -> KVCache:
        """An empty cache for ``num_rows`` streams of up to ``capacity`` patch positions."""
        attention, weight = self.config.attention, next(self.parameters())
        return KVCache(
            self.config.num_blocks,
            num_rows,
            attention.num_kv_heads,
            capacity,
            attention.head_width,
            device=weight.device,
            dtype=weight.dtype,
            window=self.config.patch if self.config.num_windows_before else 0,
        )
