"""Models in folders: save, load, and use them as a language model."""

from bytelm.hub.checkpoint import save_checkpoint as save_checkpoint
from bytelm.hub.language_model import LanguageModel as LanguageModel
from bytelm.hub.language_model import load as load
from bytelm.hub.options import GenerationOptions as GenerationOptions
from bytelm.hub.output import Output as Output
from bytelm.hub.output import Score as Score
from bytelm.hub.output import Scores as Scores
