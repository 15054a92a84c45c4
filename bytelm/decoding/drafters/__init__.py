"""Drafters: what is proposed for the next forward to verify. A drafter changes the speed, never the output."""

from bytelm.decoding.drafters.auto import AutoDrafter as AutoDrafter
from bytelm.decoding.drafters.base import NoDrafter as NoDrafter
from bytelm.decoding.drafters.heads import HeadsDrafter as HeadsDrafter
from bytelm.decoding.drafters.lookup import LookupDrafter as LookupDrafter
from bytelm.decoding.drafters.model import ModelDrafter as ModelDrafter
