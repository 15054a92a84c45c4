"""All checks of a decoder in one call."""

from bytelm.testing.checks import check_forwards, check_greedy, check_nats, check_seed_identity, check_stops
from bytelm.testing.distribution import check_distribution
from bytelm.testing.jobs import Decoder
from bytelm.testing.reports import NOTHING, Lacks, Level, Report


def run_kit(
    decoder: Decoder, *, lacks: Lacks = NOTHING, level: Level = "quick", rows: int | None = None
) -> list[Report]:
    """Run every check of a decoder as a whole.

    The rule by itself, a target's cache and output of low precision have checks of their own, which need more than a
    decoder: ``check_algebra``, ``check_cache`` and ``check_near_ties``.

    Args:
        decoder: under test.
        lacks: what it cannot do, with reasons; what needs it is left out, and reports say so.
        level: ``quick`` or ``full``.
        rows: of each case of ``check_distribution``; None for as many as the level has.
    """
    return [
        check_greedy(decoder, lacks, level),
        check_seed_identity(decoder, lacks, level),
        check_distribution(decoder, lacks, level, rows),
        check_stops(decoder, lacks, level),
        check_nats(decoder, lacks),
        check_forwards(decoder, lacks),
    ]
