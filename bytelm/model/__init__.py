"""The byte model: its configuration, its forward pass, and the laws it can be asked for."""

from bytelm.model.build import build_model as build_model
from bytelm.model.byte_lm import ByteLM as ByteLM
from bytelm.model.config import ModelConfig as ModelConfig
from bytelm.model.presets import PRESETS as PRESETS
