"""Tallies: what became of every request, counted for the life of the process. (pure)

One request is one request: it counts once in the totals and once for its model; each endpoint it was tried at
counts an attempt. What is counted, exactly:

    requests = successes + client_errors + failures + hang_ups
      success       an answer of status below 400 that came to its end
      client_error  an answer of status 4xx, a backend's or ours: the request was at fault, or too much
      failure       an answer of status 5xx, or one that broke off
      hang_up       the client left before the end: nobody's failure

A success rate is successes / (successes + failures).
"""

from __future__ import annotations

from enum import StrEnum

from proxy.sketch import Buckets, Sketch

OTHER = "other"  # models that no endpoint answered for, and those beyond the most that are counted by name
MOST_MODELS = 500
MOST_PAIRS = 5000
MOST_CLIENTS = 1000  # different clients remembered for each model; more count as that many
MOST_CAUSES = 64


class Outcome(StrEnum):
    """What became of a request or an attempt."""

    SUCCESS = "success"
    CLIENT_ERROR = "client_error"
    FAILURE = "failure"
    HANG_UP = "hang_up"


class Tally:
    """Counts of one thing: all requests, an endpoint's attempts, a model's requests, or a model at an endpoint."""

    __slots__ = (
        "bytes_out", "causes", "client_errors", "failures", "failures_in_a_row", "first_byte", "hang_ups",
        "last_at", "latency", "requests", "successes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.successes = 0
        self.client_errors = 0
        self.failures = 0
        self.hang_ups = 0
        self.failures_in_a_row = 0
        self.bytes_out = 0
        self.last_at: float | None = None  # seconds since the epoch
        self.latency = Sketch()  # milliseconds until the end, successes only
        self.first_byte = Sketch()  # milliseconds, wherever there was one
        self.causes: dict[str, int] = {}

    @property
    def judged(self) -> int:
        """How many say something of whoever answers: successes and failures."""
        return self.successes + self.failures

    def note(self, outcome: Outcome, now: float, cause: str = "") -> None:
        """Count one. `cause` says what went wrong, in a word."""
        self.requests += 1
        self.last_at = now
        if outcome is Outcome.SUCCESS:
            self.successes += 1
            self.failures_in_a_row = 0
        elif outcome is Outcome.FAILURE:
            self.failures += 1
            self.failures_in_a_row += 1
        elif outcome is Outcome.CLIENT_ERROR:
            self.client_errors += 1
        else:
            self.hang_ups += 1
        if cause:
            count_bounded(self.causes, cause, MOST_CAUSES)


class ModelTally(Tally):
    """A model's counts, and what only models have."""

    __slots__ = ("clients", "fallbacks", "hits", "input_tokens", "misses", "output_tokens", "speed")

    def __init__(self) -> None:
        super().__init__()
        self.clients: set[int] = set()  # hashes: addresses are nobody's business here
        self.hits = 0
        self.misses = 0
        self.fallbacks = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.speed = Sketch()  # tokens a second


def count_bounded(counts: dict[str, int], name: str, most: int) -> None:
    """Count one under its name, or under `other` when there are `most` names already."""
    if name not in counts and len(counts) >= most:
        name = OTHER
    counts[name] = counts.get(name, 0) + 1


class Tallies:
    """All counts of this process."""

    def __init__(self) -> None:
        self.all = Tally()
        self.endpoints: dict[int, Tally] = {}
        self.models: dict[str, ModelTally] = {}
        self.pairs: dict[tuple[str, int], Tally] = {}
        self.duration: dict[str, Buckets] = {}  # by provider
        self.attempts: dict[tuple[int, str], int] = {}  # (endpoint, result)
        self.retries: dict[str, int] = {}  # by reason
        self.overhead = Buckets()
        self.first_byte = Buckets()
        self.queue_wait = Buckets()
        self.chunk_gap = Buckets()
