"""LM heads: from the state after a byte to the laws of the next K bytes."""

from bytelm.heads.chained import ChainedHeads as ChainedHeads
from bytelm.heads.draft_heads import DraftHeads as DraftHeads
from bytelm.heads.independent import IndependentHeads as IndependentHeads
from bytelm.heads.lm_head import LMHead as LMHead
from bytelm.heads.next_patch import NextPatch as NextPatch
from bytelm.heads.state_mlp import StateMLP as StateMLP
