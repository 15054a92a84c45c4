"""Heads that also see the bytes of the patch before them."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from bytelm.nn import native
from bytelm.nn.embedding import embedding
from bytelm.nn.known_modules import Knowledge
from bytelm.nn.linear import Linear
from bytelm.nn.native_body import is_plain
from bytelm.nn.native_heads import HeadSizes, TableAddresses, draw_symbols, head_logits
from bytelm.nn.ngram import NgramTables, parts_of_tables
from bytelm.nn.norm import RMSNorm
from bytelm.shapes import Hidden


class PrefixMLP(nn.Module):
    """``down(silu(up(h, embeddings)))``: what N earlier bytes of the patch change in the state; of heads that mix, with
    the sum of the rows of n-grams behind the embeddings.
    """

    def __init__(self, inputs: int, width: int, inner: int) -> None:
        super().__init__()
        self.up = Linear(inputs, inner, bias=False)
        self.down = Linear(inner, width, bias=False)

    def forward(self, h: Float[Tensor, "*B D"], prefix: Float[Tensor, "*B F"]) -> Float[Tensor, "*B D"]:
        """The change, to be added to the state."""
        return self.down(F.silu(self.up(torch.cat((h, prefix), dim=-1))))


class ChainedHeads(nn.Module):
    """K heads; head j reads the state and the j - 1 bytes of the patch before it: p(patch | h) by the chain rule.

    Head 1 is a plain LM head. The others differ from it in a small MLP on the embeddings of the bytes before them, and,
    where there are ``tables``, every head adds the rows of the n-grams that end just before its byte. Where the heads
    mix, every head has an MLP, which reads these rows, too, as they are before their projection.

    Args:
        width: D.
        vocab_size: V.
        num_heads: K.
        byte_width: width of the heads' own byte embeddings.
        inner: inner width of the MLP.
        norm: normalises the sum before the unembedding.
        tables: n-gram tables, or None.
        num_unembeddings: K, or 1 for one that all heads share.
        mlp_inputs: what each MLP reads; of K heads that mix, else of the last K - 1.
    """

    def __init__(
        self,
        width: int,
        vocab_size: int,
        num_heads: int,
        byte_width: int,
        inner: int,
        norm: nn.Module,
        tables: NgramTables | None,
        num_unembeddings: int,
        mlp_inputs: Sequence[int],
    ) -> None:
        super().__init__()
        assert num_unembeddings in (1, num_heads)
        self.num_heads, self.mixed = num_heads, len(mlp_inputs) == num_heads
        self.embedding = embedding(vocab_size, byte_width)
        self.prefix_mlps = nn.ModuleList(PrefixMLP(inputs, width, inner) for inputs in mlp_inputs)
        self.norm = norm
        self.unembeddings = nn.ModuleList(Linear(width, vocab_size, bias=False) for _ in range(num_unembeddings))
        self.tables = tables
        self._first_of_tables = 2 + num_unembeddings + 2 * len(mlp_inputs)
        told_width = 0 if not self.mixed or tables is None else tables.row_width
        self._sizes = HeadSizes(byte_width, told_width, inner, vocab_size)

    def forward(
        self, h_BTD: Hidden, windows_BT_: Int[Tensor, "B T _"], targets_BTK: Int[Tensor, "B T K"]
    ) -> Float[Tensor, "B T K V"]:
        """Logits of all heads, head j given targets 1 … j - 1 (teacher forcing)."""
        return torch.stack([self.step(h_BTD, windows_BT_, targets_BTK[..., :j]) for j in range(self.num_heads)], dim=2)

    def step(
        self, h_BD: Float[Tensor, "*B D"], window_B_: Int[Tensor, "*B _"], prefix_BN: Int[Tensor, "*B N"]
    ) -> Float[Tensor, "*B V"]:
        """Logits of head N + 1 after a prefix of N bytes of the patch."""
        found = self._in_core(h_BD, window_B_, prefix_BN) if native.takes(h_BD) else None
        if found is not None:
            return found
        s_BD = self._state(h_BD, window_B_, prefix_BN)
        return self.unembeddings[prefix_BN.shape[-1] % len(self.unembeddings)](self.norm(s_BD))

    def _state(
        self, h_BD: Float[Tensor, "*B D"], window_B_: Int[Tensor, "*B _"], prefix_BN: Int[Tensor, "*B N"]
    ) -> Float[Tensor, "*B D"]:
        """The state, what the prefix changes in it, and the rows of n-grams."""
        n, told = prefix_BN.shape[-1], self.embedding(prefix_BN).flatten(-2)
        if self.mixed and self.tables is not None:
            sum_BF = self.tables.sum_of_rows(window_B_, prefix_BN)
            told = torch.cat((told, sum_BF), dim=-1)
            return h_BD + self.prefix_mlps[n](h_BD, told) + self.tables.projection(sum_BF)
        s_BD = h_BD + self.prefix_mlps[n - 1](h_BD, told) if n else h_BD
        return s_BD if self.tables is None else s_BD + self.tables(window_B_, prefix_BN)

    def draw(
        self,
        h_BRD: Float[Tensor, "B R D"],
        windows_BRN: Int[Tensor, "B R _"],
        prefix_BRN: Int[Tensor, "B R _"],
        num: int,
        noise_BNV: Float64[Tensor, "B _ V"] | None,
        temperature: float,
    ) -> tuple[Int[Tensor, "B R K"], Float64[Tensor, "B R K"], Float[Tensor, "B R K V"]] | None:
        """The ``num`` symbols after each prefix, -log p of each and its logits, in one call of the native core.

        None where it cannot.

        They are those that come of asking :meth:`step` again and again; see
        :func:`bytelm.nn.native_heads.draw_symbols`.
        """
        addresses = _HEADS.addresses(self, h_BRD.dtype) if native.takes(h_BRD) else None
        if addresses is None or self._sizes.vocab_size > self.embedding.num_embeddings:
            return None
        tables = None
        if self.tables is not None:
            tables = self._table_addresses(addresses, h_BRD.dtype)
            if tables is None:
                return None
        known = prefix_BRN.shape[-1]
        heads = _heads_of(addresses, len(self.unembeddings), self.mixed, range(known, known + num))
        return draw_symbols(
            h_BRD, windows_BRN, prefix_BRN, noise_BNV, temperature, addresses[:2], heads, tables, self._sizes, self._eps
        )

    def _in_core(
        self, h_BD: Float[Tensor, "*B D"], window_B_: Int[Tensor, "*B _"], prefix_BN: Int[Tensor, "*B N"]
    ) -> Float[Tensor, "*B V"] | None:
        """:meth:`step` in one call of the native core; None where it cannot read these weights."""
        addresses = _HEADS.addresses(self, h_BD.dtype)
        if addresses is None or prefix_BN.shape[:-1] != h_BD.shape[:-1] or prefix_BN.dtype != torch.int64:
            return None
        sum_BF = added_BD = None
        if self.tables is not None:
            sum_BF = self.tables.sum_of_rows(window_B_, prefix_BN)
            added_BD = self.tables.projection(sum_BF)
            if sum_BF.dtype != h_BD.dtype or added_BD.dtype != h_BD.dtype:
                return None
        n = prefix_BN.shape[-1]
        chosen = (*addresses[:2], *_heads_of(addresses, len(self.unembeddings), self.mixed, range(n, n + 1)))
        told_B_ = sum_BF if self.mixed else None
        symbols = self.embedding.num_embeddings
        return head_logits(h_BD, prefix_BN, added_BD, told_B_, chosen, self._sizes, symbols, self._eps)

    @property
    def _eps(self) -> float:
        assert isinstance(self.norm, RMSNorm)
        return self.norm.eps

    def _table_addresses(self, addresses: tuple[int, ...], dtype: torch.dtype) -> TableAddresses | None:
        """Where the tables are; None where the core cannot read them."""
        assert self.tables is not None
        return self.tables.addresses(addresses[self._first_of_tables :], dtype)


@functools.lru_cache(maxsize=256)
def _heads_of(addresses: tuple[int, ...], num_unembeddings: int, mixed: bool, heads: range) -> tuple[int, ...]:
    """Unembedding, up and down of each head after n symbols, for every n of ``heads``; 0 where it has no MLP."""
    found = list[int]()
    for n in heads:
        mlp = n if mixed else n - 1
        up = 2 + num_unembeddings + 2 * mlp
        found += addresses[2 + n % num_unembeddings], *(addresses[up : up + 2] if mlp >= 0 else (0, 0))
    return tuple(found)


def _parts_of_heads(heads: nn.Module) -> list[nn.Module] | None:
    """Embedding, norm, unembeddings, and the two layers of each MLP; None where one of them was replaced."""
    assert isinstance(heads, ChainedHeads)
    mlps = [layer for mlp in heads.prefix_mlps for layer in mlp.children()]  # up, then down
    if type(heads.norm) is not RMSNorm or type(heads.embedding) is not nn.Embedding:
        return None
    if not all(is_plain(layer) for layer in (*heads.unembeddings, *mlps)):
        return None
    of_tables = [] if heads.tables is None else parts_of_tables(heads.tables)
    return [heads.embedding, heads.norm, *heads.unembeddings, *mlps, *of_tables]


_HEADS = Knowledge(_parts_of_heads)
