"""Training with Lightning: wiring only, no mathematics."""

from bytelm.training.data import CorpusData as CorpusData
from bytelm.training.data import WeightedCorpus as WeightedCorpus
from bytelm.training.draft_heads import DraftHeadsModule as DraftHeadsModule
from bytelm.training.instruct_data import InstructData as InstructData
from bytelm.training.loss import LossConfig as LossConfig
from bytelm.training.module import ByteLMModule as ByteLMModule
from bytelm.training.optimizer import DecayGroup as DecayGroup
from bytelm.training.optimizer import OptimizerConfig as OptimizerConfig
from bytelm.training.text_data import TextData as TextData
from bytelm.training.token_data import TokenData as TokenData
