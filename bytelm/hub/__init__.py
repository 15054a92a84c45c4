"""Models in folders: save, load, and use them as a language model."""

from bytelm.hub.card import model_card as model_card
from bytelm.hub.checkpoint import save_checkpoint as save_checkpoint
from bytelm.hub.language_model import LanguageModel as LanguageModel
from bytelm.hub.loading import load as load
from bytelm.hub.options import GenerationOptions as GenerationOptions
from bytelm.hub.output import Output as Output
from bytelm.hub.output import Score as Score
from bytelm.hub.output import Scores as Scores
from bytelm.hub.pushing import prepare_push as prepare_push
from bytelm.hub.pushing import push as push
