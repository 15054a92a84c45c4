"""What a model is compared with, and how results are drawn."""

from bytelm.evaluation.character_ngram import CharacterNgram as CharacterNgram
