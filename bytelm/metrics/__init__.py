"""Figures that can be compared: bits per character, per byte and per head, accuracies, agreement of drafts."""

from bytelm.metrics.accuracy import HeadAccuracy as HeadAccuracy
from bytelm.metrics.agreement import DraftAgreement as DraftAgreement
from bytelm.metrics.bits import BitsPerCharacter as BitsPerCharacter
from bytelm.metrics.bits import HeadBits as HeadBits
