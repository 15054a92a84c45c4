"""Speed, as ratios measured in one run against a named rival on the same work."""

from bytelm.benchmarks.decoding import DecodingSpeed as DecodingSpeed
from bytelm.benchmarks.decoding import measure_decoding as measure_decoding
