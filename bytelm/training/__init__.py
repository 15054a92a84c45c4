"""Training with Lightning: wiring only, no mathematics."""

from bytelm.training.data import CorpusData as CorpusData
from bytelm.training.module import ByteLMModule as ByteLMModule
from bytelm.training.optimizer import OptimizerConfig as OptimizerConfig
