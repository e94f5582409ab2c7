"""Tallies: what became of every request, counted for the life of the process. (pure)

One request is one request: it counts once in the totals and once for its model; each endpoint it was tried at
counts an attempt. What is counted, in the words of `proxy.record.Outcome`:

    requests = successes + rejected + failures + hang_ups
    success rate = successes / (successes + failures)

`Tallies.note` is called with all finished records, some at a time, and takes some microseconds for each: successes
that are alike are counted in one go. Records that cannot be counted are said in the log, and the rest counts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence

from endpoints.durations import Buckets
from endpoints.profiles import PREFIXES
from endpoints.snapshot import ANTHROPIC, UNIVERSAL, EndpointRecord, fold_model
from proxy.record import FAILURES, AttemptNote, Outcome, RequestRecord
from proxy.sketch import Sketch, keys_of

logger = logging.getLogger(__name__)

OTHER = "other"  # models no endpoint lists, and whatever is beyond the most that is counted by name
MOST_MODELS = 500
MOST_PAIRS = 5000
MOST_ENDPOINTS = 2000  # beyond, the counts of endpoints that are gone go too
MOST_CLIENTS = 1000  # different clients told apart for each model
MOST_CAUSES = 64
_PROVIDERS = frozenset({UNIVERSAL, ANTHROPIC, *PREFIXES})
UNFIT = "unfit"  # the request could not be put to that endpoint; nothing was sent


# Seconds within which requests that are told together have ended.
_TOGETHER = 1.0


class Counts:
    """What became of one kind of thing; by itself, of a model's attempts at one endpoint."""

    __slots__ = (
        "bytes_out", "causes", "failures", "failures_in_a_row", "hang_ups", "last_at", "rejected", "requests",
        "success_seconds", "successes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.successes = 0
        self.rejected = 0
        self.failures = 0
        self.hang_ups = 0
        self.failures_in_a_row = 0
        self.bytes_out = 0
        self.last_at: float | None = None  # seconds since the epoch
        self.success_seconds = 0.0  # until the end, successes only
        self.causes: dict[str, int] = {}

    @property
    def mean_latency(self) -> float | None:
        """Milliseconds a success took; None before the first."""
        return self.success_seconds * 1000 / self.successes if self.successes else None

    @property
    def judged(self) -> int:
        """How many say something of whoever answers: successes and failures."""
        return self.successes + self.failures

    def note(self, outcome: Outcome, now: float, cause: str, number: int = 1) -> None:
        """Count one, or a number of successes. `cause` says what went wrong, in a word."""
        self.requests += number
        # Those told together may come in another order; a clock that was set back is believed.
        if self.last_at is None or not 0 < self.last_at - now < _TOGETHER:
            self.last_at = now
        if outcome is Outcome.SUCCESS:
            self.successes += number
            self.failures_in_a_row = 0
            return
        if outcome in FAILURES:
            self.failures += 1
            self.failures_in_a_row += 1
        elif outcome is Outcome.REJECTED:
            self.rejected += 1
        else:
            self.hang_ups += 1
        if cause:
            count_bounded(self.causes, cause, MOST_CAUSES)


class Tally(Counts):
    """The counts of all requests, of an endpoint's attempts or of a model's requests, with their times."""

    __slots__ = ("first_byte", "latency")

    def __init__(self) -> None:
        super().__init__()
        self.latency = Sketch()  # milliseconds until the end, successes only
        self.first_byte = Sketch()  # milliseconds, wherever there was one


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

    def note_details(self, alike: Sequence[RequestRecord]) -> None:
        """Count what records tell beyond their outcome; what was decided is alike."""
        decision = alike[0].decision
        action = decision.action if decision is not None else ""
        if action == "routed":
            self.hits += len(alike)
        elif action == "fallback":
            self.fallbacks += len(alike)
        else:
            self.misses += len(alike)
        speeds = []
        for record in alike:
            if len(self.clients) < MOST_CLIENTS:
                self.clients.add(hash(record.client_key or record.client))
            usage = record.usage
            if usage is not None:
                self.input_tokens += usage.input_tokens or 0
                self.output_tokens += usage.output_tokens or 0
                speed = record.tokens_per_second
                if speed:
                    speeds.append(speed)
        if speeds:
            self.speed.add_all(speeds)


def count_bounded(counts: dict[str, int], name: str, most: int) -> None:
    """Count one under its name, or under `other` when there are `most` names already."""
    if name not in counts and len(counts) >= most:
        name = OTHER
    counts[name] = counts.get(name, 0) + 1


class Tallies:
    """All counts of this process."""

    def __init__(self) -> None:
        self.all = Tally()
        self.endpoints: dict[int, Tally] = {}  # attempts
        self.models: dict[str, ModelTally] = {}
        self.pairs: dict[tuple[str, int], Counts] = {}  # attempts, by model and endpoint
        self.outcomes: dict[tuple[str, Outcome], int] = {}  # requests, by provider
        self.duration: dict[str, Buckets] = {}  # by provider
        self.retries: dict[str, int] = {}  # attempts after which another was made, by reason
        self.streams = 0
        self.overhead = Buckets()
        self.first_byte = Buckets()
        self.queue_wait = Buckets()
        self.chunk_gap = Buckets()
        self._spellings: dict[str, str] = {}  # case-folded name -> the name counted under

    def note(self, records: Sequence[RequestRecord]) -> None:
        """Count finished requests, in the order they ended."""
        for alike in group_alike(records):
            try:
                self._note_alike(alike)
            except Exception:  # whatever is odd about one, the others count
                logger.exception("request %s cannot be counted", alike[0].request_id)

    def _note_alike(self, alike: Sequence[RequestRecord]) -> None:
        """Count a request, or successes that are alike."""
        first, number = alike[0], len(alike)
        outcome = first.outcome or Outcome.BROKEN
        now, cause = alike[-1].at + alike[-1].seconds, request_cause(first, outcome)
        tallies: list[Tally] = [self.all]
        self.all.note(outcome, now, cause, number)
        name = self._name_model(first)
        if name:
            model = self.models.get(name) or self._open_model(name)
            model.note(outcome, now, cause, number)
            model.note_details(alike)
            tallies.append(model)
        _note_answers(tallies, alike, outcome, [0.0] * number)
        self._note_times(alike, outcome)
        if first.attempts:
            self._note_attempts(alike, outcome, name, now)

    def retain(self, endpoint_ids: Collection[int]) -> None:
        """Forget endpoints that are gone, once there are many."""
        if len(self.endpoints) > MOST_ENDPOINTS:
            self.endpoints = {key: tally for key, tally in self.endpoints.items() if key in endpoint_ids}
            self.pairs = {key: tally for key, tally in self.pairs.items() if key[1] in endpoint_ids}

    def _note_times(self, alike: Sequence[RequestRecord], outcome: Outcome) -> None:
        provider = name_provider(alike[0].prefix)
        key = (provider, outcome)
        self.outcomes[key] = self.outcomes.get(key, 0) + len(alike)
        buckets = self.duration.get(provider)
        if buckets is None:
            buckets = self.duration[provider] = Buckets()
        for each in alike:
            buckets.add(each.seconds)
            if each.queue_wait:
                self.queue_wait.add(each.queue_wait)
            first = each.first_byte
            if first is None or each.answered is None:
                continue
            self.first_byte.add(first)
            self.overhead.add(_own_time(each))
            if each.stream:
                self.streams += 1
                if each.response_chunks > 1:
                    self.chunk_gap.add((each.seconds - first) / (each.response_chunks - 1))

    def _note_attempts(self, alike: Sequence[RequestRecord], outcome: Outcome, name: str, now: float) -> None:
        """Count the attempts of a request, or of successes that each took one attempt at the same endpoint."""
        first, number = alike[0], len(alike)
        last = first.attempts[-1]
        for place, attempt in enumerate(first.attempts):
            answered = attempt is first.answered
            result = outcome if answered else judge_attempt(attempt)
            cause = attempt_cause(attempt, result)
            if attempt is not last:
                self.retries[cause] = self.retries.get(cause, 0) + 1
            endpoint = self._endpoint(attempt.endpoint)
            endpoint.note(result, now, cause, number)
            before = [each.attempts[place].began - each.started for each in alike]
            if answered:
                _note_answers([endpoint], alike, result, before)
            if name:
                pair = self._pair(name, attempt.endpoint)
                pair.note(result, now, cause, number)
                if result is Outcome.SUCCESS:
                    pair.success_seconds += sum([each.seconds for each in alike]) - sum(before)

    def _endpoint(self, endpoint: EndpointRecord) -> Tally:
        tally = self.endpoints.get(endpoint.id)
        if tally is None:
            tally = self.endpoints[endpoint.id] = Tally()
        return tally

    def _pair(self, name: str, endpoint: EndpointRecord) -> Counts:
        tally = self.pairs.get((name, endpoint.id))
        if tally is None:
            key = (name if len(self.pairs) < MOST_PAIRS else OTHER, endpoint.id)
            tally = self.pairs.setdefault(key, Counts())
        return tally

    def _name_model(self, record: RequestRecord) -> str:
        """The name a request's model is counted under: as its endpoint spells it, or the one counted before."""
        sent = record.sent_model or record.model
        if not sent:
            return ""
        endpoint, folded = record.endpoint, fold_model(sent)
        if endpoint is not None:
            listed = endpoint.model_names.get(folded)
            if listed is not None:
                return listed if listed in self.models or len(self.models) < MOST_MODELS else OTHER
        return self._spellings.get(folded, OTHER)

    def _open_model(self, name: str) -> ModelTally:
        tally = self.models[name] = ModelTally()
        self._spellings.setdefault(fold_model(name), name)
        return tally


def group_alike(records: Sequence[RequestRecord]) -> Iterator[list[RequestRecord]]:
    """Successes at the first attempt by what they have in common, until something else comes; that by itself.

    In which order successes are counted makes little difference: none while the first of each kind come in theirs,
    for the first to name a model gets a place for it. Of failures it does: how many there were in a row.
    """
    groups: dict[tuple[object, ...], list[RequestRecord]] = {}
    for record in records:
        attempts = record.attempts
        if record.outcome is Outcome.SUCCESS and len(attempts) == 1 and attempts[0] is record.answered:
            action = None if record.decision is None else record.decision.action
            said = (record.model, record.sent_model, record.prefix, record.stream)
            key = (action, id(attempts[0].endpoint), *said)  # the records hold the endpoints meanwhile
            groups.setdefault(key, []).append(record)
        else:
            yield from groups.values()
            groups = {}
            yield [record]
    yield from groups.values()


def _note_answers(
    tallies: Sequence[Tally], alike: Sequence[RequestRecord], outcome: Outcome, before: Sequence[float]
) -> None:
    """Count sizes and times of answers; `before` are the seconds of each until its times are measured."""
    size, firsts, times = 0, list[float](), list[float]()
    for each, start in zip(alike, before, strict=True):
        size += each.response_bytes
        times.append((each.seconds - start) * 1000)
        first = each.first_byte
        if first is not None and each.answered is not None:
            firsts.append((first - start) * 1000 if first > start else 0.0)
    keys = keys_of(firsts)
    for tally in tallies:
        tally.bytes_out += size
        tally.first_byte.add_at(keys, firsts)
    if outcome is Outcome.SUCCESS:
        keys, seconds = keys_of(times), sum(times) / 1000
        for tally in tallies:
            tally.success_seconds += seconds
            tally.latency.add_at(keys, times)


def _own_time(record: RequestRecord) -> float:
    """Seconds a request spent here: outside of its attempts and not in line."""
    own = record.seconds - record.queue_wait
    for attempt in record.attempts:
        own -= attempt.seconds or 0.0
    return max(0.0, own)


def judge_attempt(attempt: AttemptNote) -> Outcome:
    """What an attempt that did not become the client's answer came to."""
    if attempt.error == UNFIT:
        return Outcome.REJECTED
    if attempt.error or attempt.status is not None:
        return Outcome.BACKEND_ERROR
    return Outcome.CLIENT_GONE


def attempt_cause(attempt: AttemptNote, outcome: Outcome) -> str:
    """Why an attempt was no success, in a word."""
    if attempt.error:
        return attempt.error
    if outcome is Outcome.BROKEN:
        return outcome.value
    if outcome is Outcome.BACKEND_ERROR or outcome is Outcome.REJECTED:
        return f"status_{attempt.status}"
    return ""


def request_cause(record: RequestRecord, outcome: Outcome) -> str:
    """Why a request was no success, in a word: our error code, the backend's status, or that it broke off."""
    if outcome is Outcome.SUCCESS or outcome is Outcome.CLIENT_GONE:
        return ""
    if record.error_code:
        return str(record.error_code)
    if outcome is Outcome.BROKEN:
        return outcome.value
    return f"status_{record.answer_status or record.status}"


def name_provider(prefix: str) -> str:
    """The prefix a request came by; `other` for prefixes nobody serves."""
    return prefix if prefix in _PROVIDERS else OTHER
