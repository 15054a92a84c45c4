"""What a server did, in Prometheus' text format (version 0.0.4)."""

import bisect
import collections
import itertools
import math
import time
from collections.abc import Iterable, Iterator

from bytelm.serving.engine import Engine, Ticket

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Histogram:
    """Cumulative counts of numbers of seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Enter one number."""
        self._counts[bisect.bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """As Prometheus reads it."""
        bounds = (*(f"{bound:g}" for bound in _SECONDS), "+Inf")
        for bound, count in zip(bounds, itertools.accumulate(self._counts), strict=True):
            yield f'{name}_bucket{{le="{bound}"}} {count}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {sum(self._counts)}"


class Metrics:
    """Counts of the requests that went through one event loop, shown beside those of the engine.

    Attributes:
        requests: by the status they ended with; 499 for clients that went before.
        prompt_symbols: read for requests that were admitted.
    """

    def __init__(self) -> None:
        self.requests: collections.Counter[int] = collections.Counter()
        self.prompt_symbols = 0
        self._queued, self._first, self._whole = Histogram(), Histogram(), Histogram()

    def first(self, ticket: Ticket) -> None:
        """The first text of a request is there."""
        self._queued.observe(ticket.admitted - ticket.submitted)
        self._first.observe(time.monotonic() - ticket.submitted)
        self.prompt_symbols += ticket.num_prompt_symbols

    def end(self, status: int, ticket: Ticket | None = None) -> None:
        """A request has ended, with this status."""
        self.requests[status] += 1
        if ticket is not None:
            self._whole.observe(time.monotonic() - ticket.submitted)

    def exposition(self, engine: Engine) -> str:
        """All metrics."""
        totals = [session.totals for session in engine.sessions.values()]
        judged, accepted = (sum(int(getattr(t.tally, name).sum()) for t in totals) for name in _TALLIES)
        by_status = [(f'{{status="{status}"}}', count) for status, count in sorted(self.requests.items())]
        lines = [
            *_metric(
                "requests_total", "counter", "Requests by status; 499: the client went before the end.", by_status
            ),
            *_one("requests_queued", "gauge", "Requests that wait for room in the batch.", engine.num_queued),
            *_one("batch_rows", "gauge", "Rows that run.", engine.num_rows),
            *_one("cache_bytes", "gauge", "Keys and values of the rows that run.", _cache_bytes(engine)),
            *_one("prompt_symbols_total", "counter", "Symbols of prompts.", self.prompt_symbols),
            *_one("symbols_total", "counter", "Symbols emitted.", sum(t.symbols for t in totals)),
            *_one("forwards_total", "counter", "Forwards of the model.", sum(t.forwards for t in totals)),
            *_one("drafts_judged_total", "counter", "Drafted symbols that were compared.", judged),
            *_one("drafts_accepted_total", "counter", "Drafted symbols that were emitted.", accepted),
            *_one("draft_acceptance_ratio", "gauge", "Accepted of judged.", accepted / judged if judged else math.nan),
            *_seconds("queue_seconds", "From arrival to the batch.", self._queued),
            *_seconds("first_text_seconds", "From arrival to the first forward's end.", self._first),
            *_seconds("request_seconds", "From arrival to the end.", self._whole),
        ]
        return "\n".join(lines) + "\n"


_TALLIES = ("judged_at", "accepted_at")


def _cache_bytes(engine: Engine) -> int:
    return sum(session.cache_bytes for session in engine.sessions.values())


def _metric(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP bytelm_{name} {text}"
    yield f"# TYPE bytelm_{name} {kind}"
    for labels, value in samples:
        yield f"bytelm_{name}{labels} {'NaN' if math.isnan(value) else value}"


def _one(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    return _metric(name, kind, text, [("", value)])


def _seconds(name: str, text: str, histogram: Histogram) -> Iterator[str]:
    yield from _metric(name, "histogram", text, [])
    yield from histogram.lines(f"bytelm_{name}")
