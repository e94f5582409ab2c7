"""What happened lately, in this process: rates, percentiles, a quarter of an hour of history, errors. (pure)

Fed with each finished request, which costs two or three microseconds; everything else is worked out when somebody
looks. Time runs in steps of STEP seconds. A step in which nothing happened takes no memory.

`note` and `sample` run on the event loop, the readers in any thread: they read copies, which one thread can make
while another writes (copying a list, deque or array is one step of the interpreter).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

STEP = 5.0  # seconds
STEPS = 180  # a quarter of an hour
RECENT = 128  # requests that the percentiles of now are of
RECENT_SECONDS = 300.0  # and not older than this
MOST_SAMPLES = 64  # kept of one step
ERRORS = 20  # remembered of each endpoint
SERIES = ("requests", "errors", "in_flight", "tokens", "first_byte", "latency")


class Finished(Protocol):
    """What is read of a request's record (`proxy.record.RequestRecord`)."""

    @property
    def endpoint(self) -> Any: ...
    @property
    def outcome(self) -> Any: ...
    @property
    def usage(self) -> Any: ...
    @property
    def first_byte(self) -> float | None: ...
    @property
    def seconds(self) -> float: ...
    @property
    def status(self) -> int | None: ...
    @property
    def error_code(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def request_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ErrorNote:
    """One request that failed at an endpoint; `at` in seconds since the epoch."""

    at: float
    outcome: str
    status: int | None
    code: str
    model: str
    request_id: str


@dataclass(slots=True)
class _Step:
    """One step of one scope, `number` steps after the epoch."""

    number: int
    requests: int = 0
    errors: int = 0
    tokens: int = 0
    in_flight: int = 0
    first_bytes: array[float] = field(default_factory=lambda: array("f"))
    seconds: array[float] = field(default_factory=lambda: array("f"))


@dataclass(frozen=True, slots=True)
class Recent:
    """The last moments of an endpoint, or of all; rates a second, times in milliseconds, None for nothing."""

    requests: float = 0.0
    errors: float = 0.0
    tokens: float = 0.0
    error_percent: float | None = None
    p50: float | None = None
    p95: float | None = None
    first_byte: float | None = None


class Scope:
    """The history of one endpoint, or of all together."""

    __slots__ = ("errors", "recent", "steps")

    def __init__(self) -> None:
        self.steps: deque[_Step] = deque(maxlen=STEPS + 1)
        self.recent: deque[tuple[float, float, float | None]] = deque(maxlen=RECENT)
        self.errors: deque[ErrorNote] = deque(maxlen=ERRORS)

    def step(self, now: float) -> _Step:
        """The step of this moment."""
        number = int(now // STEP)
        if self.steps and self.steps[-1].number >= number:
            return self.steps[-1]
        made = _Step(number)
        self.steps.append(made)
        return made

    def look(self, now: float) -> Recent:
        """Rates over the step under way and the one before, percentiles over the last requests."""
        number = int(now // STEP)
        lately = [each for each in list(self.steps)[-2:] if each.number >= number - 1]
        span = STEP + now % STEP
        requests, errors = sum(each.requests for each in lately), sum(each.errors for each in lately)
        tokens = sum(each.tokens for each in lately)
        kept = [each for each in list(self.recent) if each[0] > now - RECENT_SECONDS]
        seconds = [each[1] for each in kept]
        first = [each[2] for each in kept if each[2] is not None]
        return Recent(
            requests=requests / span,
            errors=errors / span,
            tokens=tokens / span,
            error_percent=100.0 * errors / requests if requests else None,
            p50=percentile(seconds, 0.5),
            p95=percentile(seconds, 0.95),
            first_byte=percentile(first, 0.5),
        )

    def history(self, now: float) -> dict[str, list[float | None]]:
        """Each series over the last quarter of an hour, oldest first; the step under way is left out."""
        last = int(now // STEP) - 1
        found = {each.number: each for each in list(self.steps)}
        chosen = [found.get(number) for number in range(last - STEPS + 1, last + 1)]
        return {name: [_value(name, each) for each in chosen] for name in SERIES}

    def point(self, now: float) -> dict[str, float | None]:
        """The last finished step of each series."""
        number = int(now // STEP) - 1
        step = next((each for each in reversed(list(self.steps)[-3:]) if each.number == number), None)
        return {name: _value(name, step) for name in SERIES}


class Tally:
    """All scopes of this process."""

    def __init__(self) -> None:
        self.total = Scope()
        self.endpoints: dict[int, Scope] = {}

    def note(self, record: Finished, failed: bool, now: float) -> None:
        """Count a finished request (`now`: seconds since the epoch)."""
        usage = record.usage
        tokens = (usage.output_tokens or 0) if usage is not None else 0
        endpoint = record.endpoint
        scopes = (self.total,) if endpoint is None else (self.total, self.scope(endpoint.id))
        for scope in scopes:
            step = scope.step(now)
            step.requests += 1
            step.tokens += tokens
            step.errors += failed
            scope.recent.append((now, record.seconds, record.first_byte))
            if len(step.seconds) < MOST_SAMPLES:
                step.seconds.append(record.seconds)
                if record.first_byte is not None:
                    step.first_bytes.append(record.first_byte)
        if failed:
            scopes[-1].errors.append(
                ErrorNote(
                    now, str(record.outcome), record.status, record.error_code or "", record.model or "",
                    record.request_id,
                )
            )  # fmt: skip

    def sample(self, in_flight: Mapping[int, int], now: float) -> None:
        """Note how many requests are open now; the most of a step is what its history shows."""
        total = 0
        for endpoint_id, number in in_flight.items():
            if number:
                total += number
                step = self.scope(endpoint_id).step(now)
                step.in_flight = max(step.in_flight, number)
        if total:
            step = self.total.step(now)
            step.in_flight = max(step.in_flight, total)

    def scope(self, endpoint_id: int) -> Scope:
        """The scope of an endpoint, made when it is first needed."""
        found = self.endpoints.get(endpoint_id)
        if found is None:
            found = self.endpoints[endpoint_id] = Scope()
        return found

    def look(self, endpoint_id: int, now: float) -> Recent:
        """The last moments of an endpoint."""
        scope = self.endpoints.get(endpoint_id)
        return scope.look(now) if scope is not None else NOTHING

    def retain(self, endpoint_ids: Collection[int]) -> None:
        """Forget endpoints that are gone."""
        self.endpoints = {key: scope for key, scope in self.endpoints.items() if key in endpoint_ids}


NOTHING = Recent()


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value in milliseconds that `share` of `values` (seconds) do not exceed; None without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else None


def _value(name: str, step: _Step | None) -> float | None:
    if name == "first_byte":
        return _rounded(percentile(step.first_bytes, 0.5)) if step else None
    if name == "latency":
        return _rounded(percentile(step.seconds, 0.95)) if step else None
    if step is None:
        return 0
    if name == "in_flight":
        return step.in_flight
    counts = {"requests": step.requests, "errors": step.errors, "tokens": step.tokens}
    return round(counts[name] / STEP, 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
