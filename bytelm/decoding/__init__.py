"""One decoder for every law: a target computes, a drafter proposes, one rule emits. Knows protocols, not models."""

from bytelm.decoding.constraints import Acceptor as Acceptor
from bytelm.decoding.constraints import AutomatonMask as AutomatonMask
from bytelm.decoding.drafters import HeadsDrafter as HeadsDrafter
from bytelm.decoding.drafters import NoDrafter as NoDrafter
from bytelm.decoding.generation import DecodeStats as DecodeStats
from bytelm.decoding.generation import Generation as Generation
from bytelm.decoding.generation import Trace as Trace
from bytelm.decoding.loop import Streamer as Streamer
from bytelm.decoding.loop import decode as decode
from bytelm.decoding.processors import LogitBias as LogitBias
from bytelm.decoding.processors import NoRepeatNgram as NoRepeatNgram
from bytelm.decoding.processors import Processor as Processor
from bytelm.decoding.processors import Processors as Processors
from bytelm.decoding.processors import RepetitionPenalty as RepetitionPenalty
from bytelm.decoding.processors import State as State
from bytelm.decoding.processors import SuppressUntil as SuppressUntil
from bytelm.decoding.processors import UserProcessor as UserProcessor
from bytelm.decoding.processors import map_state as map_state
from bytelm.decoding.protocols import Block as Block
from bytelm.decoding.protocols import Choose as Choose
from bytelm.decoding.protocols import Drafter as Drafter
from bytelm.decoding.protocols import Target as Target
from bytelm.decoding.sampling import Sampling as Sampling
from bytelm.decoding.sampling import warp as warp
from bytelm.decoding.stops import SequenceStop as SequenceStop
from bytelm.decoding.stops import Stop as Stop
