"""Figures that can be compared: bits per character, per byte and per head, accuracies."""

from bytelm.metrics.accuracy import HeadAccuracy as HeadAccuracy
from bytelm.metrics.bits import BitsPerCharacter as BitsPerCharacter
from bytelm.metrics.bits import HeadBits as HeadBits
