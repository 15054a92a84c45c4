"""One decoder for every law: a target computes, a drafter proposes, one rule emits. Knows protocols, not models."""

from bytelm.decoding.drafters import AutoDrafter as AutoDrafter
from bytelm.decoding.drafters import HeadsDrafter as HeadsDrafter
from bytelm.decoding.drafters import LookupDrafter as LookupDrafter
from bytelm.decoding.drafters import ModelDrafter as ModelDrafter
from bytelm.decoding.drafters import NoDrafter as NoDrafter
from bytelm.decoding.generation import Generation as Generation
from bytelm.decoding.generation import Trace as Trace
from bytelm.decoding.loop import News as News
from bytelm.decoding.loop import Run as Run
from bytelm.decoding.loop import Streamer as Streamer
from bytelm.decoding.loop import decode as decode
from bytelm.decoding.processors import Processor as Processor
from bytelm.decoding.protocols import Block as Block
from bytelm.decoding.protocols import Draft as Draft
from bytelm.decoding.protocols import Drafter as Drafter
from bytelm.decoding.protocols import Round as Round
from bytelm.decoding.protocols import Target as Target
from bytelm.decoding.rules import RULES as RULES
from bytelm.decoding.sampling import Sampling as Sampling
from bytelm.decoding.sampling import warp as warp
from bytelm.decoding.stats import DecodeStats as DecodeStats
from bytelm.decoding.stops import SequenceStop as SequenceStop
from bytelm.decoding.stops import Stop as Stop
