"""Speed, as ratios measured in one run against a named rival on the same work; and what models cost by their size."""

from bytelm.benchmarks.bandwidth import Bandwidth as Bandwidth
from bytelm.benchmarks.bandwidth import measure_bandwidth as measure_bandwidth
from bytelm.benchmarks.bandwidth import weight_bytes as weight_bytes
from bytelm.benchmarks.coders import Coder as Coder
from bytelm.benchmarks.coders import Skipped as Skipped
from bytelm.benchmarks.coders import encoding_coder as encoding_coder
from bytelm.benchmarks.coders import python_codec as python_codec
from bytelm.benchmarks.coders import rival_coders as rival_coders
from bytelm.benchmarks.decoding import DecodingSpeed as DecodingSpeed
from bytelm.benchmarks.decoding import Way as Way
from bytelm.benchmarks.decoding import decoding_ways as decoding_ways
from bytelm.benchmarks.decoding import measure_decoding as measure_decoding
from bytelm.benchmarks.decoding_rivals import RivalSpeed as RivalSpeed
from bytelm.benchmarks.decoding_rivals import measure_rivals as measure_rivals
from bytelm.benchmarks.encoding import CodingMemory as CodingMemory
from bytelm.benchmarks.encoding import CodingSpeed as CodingSpeed
from bytelm.benchmarks.encoding import measure_coding as measure_coding
from bytelm.benchmarks.encoding import measure_memory as measure_memory
from bytelm.benchmarks.encoding import repeat_text as repeat_text
from bytelm.benchmarks.forwards import ForwardCost as ForwardCost
from bytelm.benchmarks.forwards import measure_forwards as measure_forwards
from bytelm.benchmarks.generation_speed import GenerationSpeed as GenerationSpeed
from bytelm.benchmarks.generation_speed import measure_generation as measure_generation
from bytelm.benchmarks.operations import cache_bytes as cache_bytes
from bytelm.benchmarks.operations import model_bytes as model_bytes
from bytelm.benchmarks.operations import operations_per_symbol as operations_per_symbol
