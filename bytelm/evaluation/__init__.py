"""What a model is compared with, and how results are drawn."""

from bytelm.evaluation.character_ngram import CharacterNgram as CharacterNgram
from bytelm.evaluation.encoding_view import CodedCharacter as CodedCharacter
from bytelm.evaluation.encoding_view import EncodingView as EncodingView
from bytelm.evaluation.encoding_view import byte_classes as byte_classes
