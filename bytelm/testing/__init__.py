"""A kit that checks any speculative decoder, ours or another, and bugs that show that it would notice.

A decoder under test is a function from a :class:`Job` to one :class:`Answer` per row. ``run_kit(decoder)`` runs the
checks of it as a whole; ``check_algebra`` takes the rule by itself, ``check_cache`` a target, ``check_near_ties``
output of low precision. Checks return a :class:`Report` and do not raise; what a decoder lacks is left out with its
reason.
``Ours`` is the adapter of :func:`bytelm.decoding.decode`, and shows how one is written.

``BUGS`` are wrong decoders, most of them seen in published code. What catches them:

======================  =========================================  ============================
bug                     what is wrong                              checks that must fail
======================  =========================================  ============================
OffByOne                drafts judged in a context too short       greedy, distribution
BonusFromWrongRow       symbol after a whole draft from the last   greedy, distribution
                        draft's law
ResidualIsLaw           p drawn after a rejection, not (p - q)+    algebra, distribution
DraftTemperature        q taken at another temperature             distribution
Lenient                 accepts more than p / q                    algebra, distribution
AcceptAll               accepts everything                         greedy, distribution
Redraw                  draws again after a mismatch (Medusa)      distribution, seed identity
SharedNumber            accepts with the number drawn with         distribution
NoiseTwice              neighbours share noise                     distribution
StaleSlot               a rejected draft stays in the cache        greedy, distribution,
                                                                   seed identity
DropFirst               loses the prefill's symbol (litgpt)        greedy, distribution, stops
RatioAtZero             ratio test at temperature 0 (litgpt)       greedy
StopAtStepEnds          no stop inside a step (transformers)       stops
Overshoot               no length limit inside a step              greedy, stops
StreamPastStop          streams what follows a stop                stops
NoiseByRound            noise depends on acceptance (TensorRT)     seed identity
SeedByPlace             noise depends on the place in the batch    seed identity
SeedIgnored             one noise for all seeds                    distribution, seed identity
NatsAfterTemperature    nats of the warped law                     nats
Wasteful                drops drafts that hold                     forwards
======================  =========================================  ============================
"""

from bytelm.testing.audit import Committed as Committed
from bytelm.testing.audit import check_cache as check_cache
from bytelm.testing.audit import check_near_ties as check_near_ties
from bytelm.testing.audit import poison_cache as poison_cache
from bytelm.testing.bugs import BUGS as BUGS
from bytelm.testing.bugs import Bug as Bug
from bytelm.testing.checks import Drafting as Drafting
from bytelm.testing.checks import check_forwards as check_forwards
from bytelm.testing.checks import check_greedy as check_greedy
from bytelm.testing.checks import check_nats as check_nats
from bytelm.testing.checks import check_seed_identity as check_seed_identity
from bytelm.testing.checks import check_stops as check_stops
from bytelm.testing.distribution import check_algebra as check_algebra
from bytelm.testing.distribution import check_distribution as check_distribution
from bytelm.testing.drafters import OracleDrafter as OracleDrafter
from bytelm.testing.drafters import ProposalDrafter as ProposalDrafter
from bytelm.testing.drafters import RandomDrafter as RandomDrafter
from bytelm.testing.drafters import ScriptedDrafter as ScriptedDrafter
from bytelm.testing.drafters import WrongDrafter as WrongDrafter
from bytelm.testing.jobs import Answer as Answer
from bytelm.testing.jobs import Decoder as Decoder
from bytelm.testing.jobs import Job as Job
from bytelm.testing.jobs import proposals as proposals
from bytelm.testing.kit import run_kit as run_kit
from bytelm.testing.ours import Ours as Ours
from bytelm.testing.ours import ToyTarget as ToyTarget
from bytelm.testing.ours import check_our_algebra as check_our_algebra
from bytelm.testing.reports import Report as Report
from bytelm.testing.reports import format_reports as format_reports
from bytelm.testing.speculative import Coupled as Coupled
from bytelm.testing.speculative import Speculative as Speculative
from bytelm.testing.toy import ToyLaw as ToyLaw
