"""Statistics add up: a scripted run is counted alike by the script, the status routes, the metrics and the log."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, cast

import pytest
from asgiref.sync import sync_to_async
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from endpoints.loading import LoaderHealth
from proxy.admission import admission
from proxy.errors import ErrorCode
from proxy.finished import subscribe, unsubscribe
from proxy.journal import Journal
from proxy.live import Live, live
from proxy.models import RequestLog
from proxy.record import AttemptNote, Outcome, RequestRecord, Usage
from proxy.roll_ups import totals
from proxy.status.metric_sheet import write_metrics
from proxy.status.metrics import build_metrics
from proxy.status.model_stats import build_model_stats
from proxy.status.overview import build_status
from proxy.status.picture import Picture
from proxy.tallies import MOST_CLIENTS, MOST_MODELS, MOST_PAIRS, OTHER, Tallies
from proxy.violations import Violations
from tests.fakes import Conn, Cut, ScriptedBackend, Silence, come_true, json_reply, sse_reply
from tests.proxy.builders import NOW, make_endpoint, make_snapshot, make_view
from tests.proxy.conftest import Exchange

CHAT = "/olla/openai/v1/chat/completions"
MESSAGES = "/olla/anthropic/v1/messages"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
COMPLETION = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "ok",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": USAGE,
}  # fmt: skip
MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "yes"}],
    "usage": {"input_tokens": 5, "output_tokens": 2},
}  # fmt: skip
GREEDY = "10.9.9.9"  # has as many requests open as it may
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = HEAD + b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
STREAM = sse_reply([{"choices": [{"index": 0, "delta": {"content": word}}]} for word in "abc"])


class Tried(NamedTuple):
    """One attempt as the script foresees it."""

    endpoint: str
    outcome: str
    cause: str = ""


@dataclass(frozen=True)
class Act:
    """One kind of request and what must be counted of it."""

    model: str
    outcome: Outcome
    attempts: tuple[Tried, ...]
    cause: str = ""
    path: str = CHAT
    stream: bool = False
    leaves: str = ""  # "at once" or "midway"
    counted_as: str | None = None  # the model's name in the statistics
    mode: str = ""  # of messages
    session: str = ""  # its sticky session
    client: str = "10.1.2.3"
    queues: bool = False


GOOD = (Tried("first", "success"),)
ACTS = {
    "plain": Act("ok", Outcome.SUCCESS, GOOD),
    "stream": Act("ok", Outcome.SUCCESS, GOOD, stream=True),
    "translated": Act("ok", Outcome.SUCCESS, GOOD, path=MESSAGES, mode="translation"),
    "passed through": Act(
        "claude", Outcome.SUCCESS, (Tried("native", "success"),), path=MESSAGES, mode="passthrough"
    ),
    "sticky": Act("ok", Outcome.SUCCESS, GOOD, session="s"),
    "queued": Act("narrow", Outcome.SUCCESS, (Tried("narrow", "success"),), queues=True),
    "down": Act("gone", Outcome.BACKEND_ERROR, (), "model_unavailable", counted_as=OTHER),
    "limited": Act("ok", Outcome.REJECTED, (), "rate_limited", counted_as="", client=GREEDY),
    "server error": Act("broken", Outcome.BACKEND_ERROR, (Tried("first", "failure", "status_500"),), "status_500"),
    "busy": Act("busy", Outcome.BACKEND_ERROR, (Tried("first", "failure", "status_429"),), "status_429"),
    "refused": Act("wrong", Outcome.REJECTED, (Tried("first", "rejected", "status_400"),), "status_400"),
    "retried": Act(
        "flaky", Outcome.SUCCESS, (Tried("first", "failure", "status_503"), Tried("second", "success"))
    ),
    "dropped": Act(
        "dropped", Outcome.SUCCESS, (Tried("first", "failure", "nothing_received"), Tried("second", "success"))
    ),
    "lost": Act(
        "lost", Outcome.BACKEND_ERROR, (Tried("first", "failure", "nothing_received"),), "upstream_unreachable"
    ),
    "cut": Act("cut", Outcome.BROKEN, (Tried("first", "failure", "broke_off"),), "broken", stream=True),
    "midway": Act("slow", Outcome.CLIENT_GONE, (Tried("first", "client_gone"),), stream=True, leaves="midway"),
    "at once": Act("silent", Outcome.CLIENT_GONE, (Tried("first", "client_gone"),), leaves="at once"),
    "unknown": Act("nobody", Outcome.REJECTED, (), "model_not_found", counted_as=OTHER),
}  # fmt: skip
SHARES = {"plain": 8, "stream": 8, "translated": 4, "retried": 4, "dropped": 2, "passed through": 2, "sticky": 3}
QUEUED = 3  # at once, for one place
MOST_OPEN = 50  # requests of one client


def reply_of_first(model: str, *, stream: bool) -> Any:
    """What the first endpoint does with a request for a model."""
    if stream and model == "ok":
        return STREAM
    return {
        "ok": json_reply(COMPLETION), "broken": json_reply({"error": {}}, 500), "busy": json_reply({}, 429),
        "wrong": json_reply({"error": {}}, 400), "flaky": json_reply({}, 503), "dropped": Cut(), "lost": Cut(),
        "cut": Cut(FIRST), "slow": Cut([FIRST, 60.0]), "silent": Silence(),
    }[model]  # fmt: skip


async def be_first(conn: Conn) -> None:
    """The script of the first endpoint."""
    while not conn.transport.is_closing() and (request := await conn.request()) is not None:
        body = request.json()
        play = asyncio.ensure_future(conn.play(reply_of_first(body["model"], stream=body.get("stream")), request))
        gone = asyncio.ensure_future(conn.gone.wait())
        await asyncio.wait({play, gone}, return_when=asyncio.FIRST_COMPLETED)
        play.cancel()
        gone.cancel()


@dataclass
class Run:
    """The script's own tally."""

    acts: Counter[str]
    told: dict[str, tuple[str, Exchange]]  # by request id: the act, and what its client got
    log: list[RequestLog]

    @property
    def body_bytes(self) -> int:
        """What all clients got."""
        return sum(len(exchange.body) for _, exchange in self.told.values())

    def count(self, **wanted: Any) -> int:
        """Requests of acts with these attributes."""
        return sum(
            number
            for name, number in self.acts.items()
            if all(getattr(ACTS[name], field) == value for field, value in wanted.items())
        )

    def attempts(self, **wanted: str) -> int:
        """Attempts with these attributes."""
        return sum(
            number
            for name, number in self.acts.items()
            for tried in ACTS[name].attempts
            if all(getattr(tried, field) == value for field, value in wanted.items())
        )


async def perform(proxy: Any, act: Act, request_id: str, first: ScriptedBackend, alone: asyncio.Lock) -> Exchange:
    """One request, to its end."""
    # Different words: else they would all be one conversation, which stays with its endpoint.
    body = {"model": act.model, "max_tokens": 9, "messages": [{"role": "user", "content": request_id}]}
    headers = [("X-Olla-Session-ID", act.session)] if act.session else []
    if act.stream:
        body["stream"] = True
    if act.leaves != "at once":
        exchange = proxy.open("POST", act.path, body, [*headers, ("X-Request-ID", request_id)], client=act.client)
        if act.leaves == "midway":
            await exchange.wait_bytes(len(PIECE))
            exchange.leave()
        return cast("Exchange", await exchange.done())
    async with alone:  # so that it is this request's arrival that is waited for
        seen = sum(b'"silent"' in each.body for each in first.requests)
        exchange = proxy.open("POST", act.path, body, [("X-Request-ID", request_id)])
        await first.wait_for(
            lambda: sum(b'"silent"' in each.body for each in first.requests) > seen, 5, "a silent request"
        )
        exchange.leave()
        return cast("Exchange", await exchange.done())


class Gate:
    """A backend that answers while it is open."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def play(self, conn: Conn) -> None:
        """What it does with a connection."""
        while not conn.transport.is_closing() and (request := await conn.request()) is not None:
            await self.opened.wait()
            await conn.play(json_reply(COMPLETION), request)


async def queue_up(proxy: Any, gate: Gate, ids: list[str]) -> list[Exchange]:
    """Requests for one place: the first holds it until the others stand in line, then all are answered."""
    gate.opened.clear()
    body = {"model": "narrow", "messages": [{"role": "user", "content": ids[0]}]}
    waiting = [proxy.open("POST", CHAT, body, [("X-Request-ID", each)]) for each in ids]
    await come_true(lambda: live.queue.waiting == len(ids) - 1)
    gate.opened.set()
    return [await each.done() for each in waiting]


@pytest.fixture
async def run(proxy, settings, long_form):
    """At least 500 requests (5,000 in the long form) of every kind in random order, ten at a time."""
    settings.OLLA_LOAD_BALANCER = "priority"
    settings.OLLA_BREAKER_THRESHOLD = 0
    settings.OLLA_STICKY_SESSIONS = True
    settings.OLLA_PER_IP_REQUESTS_PER_MINUTE = settings.OLLA_GLOBAL_REQUESTS_PER_MINUTE = 0
    settings.OLLA_PER_IP_BURST = 0
    settings.OLLA_PER_IP_CONCURRENT_REQUESTS = MOST_OPEN
    live.reset()
    for _ in range(MOST_OPEN):
        admission.open_requests.open(GREEDY, MOST_OPEN)
    parts = [name for name in ACTS for _ in range(SHARES.get(name, 1)) if not ACTS[name].queues]
    plan = parts * -(-(5000 if long_form else 500) // len(parts))
    random.Random(4).shuffle(plan)
    told: dict[Any, Any] = {}
    journal, alone, gate = Journal(10_000), asyncio.Lock(), Gate()
    subscribe(journal.note)
    async with (
        ScriptedBackend(be_first) as first, ScriptedBackend(json_reply(COMPLETION)) as second,
        ScriptedBackend(json_reply(MESSAGE)) as native, ScriptedBackend(gate.play) as narrow,
    ):  # fmt: skip
        asked = {act.model for act in ACTS.values() if any(each.endpoint == "first" for each in act.attempts)}
        # Nobody probes here: with the usual interval, statuses would be too old to be believed after 15 seconds.
        add = partial(proxy.add, check_interval=3600.0)
        await add(first.url, "first", sorted(asked), priority=300)
        await add(second.url, "second", ["flaky", "dropped"], priority=100)
        await add(native.url, "native", ["claude"], backend_type="vllm", anthropic_mode="passthrough")
        await add(narrow.url, "narrow", ["narrow"], max_concurrent=1)
        await add("http://127.0.0.1:9", "gone", ["gone"], status="offline")
        for start in range(0, len(plan), 10):
            some = [(name, f"request-{start + number}") for number, name in enumerate(plan[start : start + 10])]
            done = await asyncio.gather(*(perform(proxy, ACTS[name], key, first, alone) for name, key in some))
            told |= {key: (name, exchange) for (name, key), exchange in zip(some, done, strict=True)}
        for turn in range(10 if long_form else 4):
            ids = [f"queued-{turn}-{number}" for number in range(QUEUED)]
            done = await queue_up(proxy, gate, ids)
            told |= {key: ("queued", exchange) for key, exchange in zip(ids, done, strict=True)}
        await proxy.settled(20)
        unsubscribe(journal.note)
        await journal.flush(20)
        rows = await sync_to_async(lambda: list(RequestLog.objects.all()))()
        for _ in range(MOST_OPEN):
            admission.open_requests.close(GREEDY)
        yield Run(Counter(name for name, _ in told.values()), told, rows)


FAILED = (Outcome.BACKEND_ERROR, Outcome.BROKEN)
COUNTERS = {"total_requests": None, "successful_requests": Outcome.SUCCESS, "hang_ups": Outcome.CLIENT_GONE,
            "rejected_requests": Outcome.REJECTED}  # fmt: skip


def named(act: Act) -> str:
    """The name an act's model is counted under."""
    return act.model if act.counted_as is None else act.counted_as


async def test_it_counts_the_same_everywhere(proxy, run):
    system = (await proxy.call("GET", "/internal/status")).json()["system"]
    text = (await proxy.call("GET", "/internal/metrics")).body.decode()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    check_totals(run, system, samples)
    check_models(run, (await proxy.call("GET", "/internal/stats/models")).json(), samples)
    check_endpoints(run, (await proxy.call("GET", "/internal/status/endpoints")).json()["endpoints"], samples)
    check_translator(run, (await proxy.call("GET", "/internal/stats/translators")).json(), samples)
    check_sessions(run, (await proxy.call("GET", "/internal/stats/sticky")).json(), samples)
    check_line_and_limits(run, system, samples)
    check_log(run)
    check_rows(run)
    check_sums(run, await sync_to_async(totals)())


def check_totals(run, system, samples):
    assert system["total_requests"] == run.acts.total() == samples["olla_requests_total", ()]
    failed = sum(run.count(outcome=each) for each in FAILED)
    assert system["total_failures"] == failed == samples["olla_failures_total", ()]
    for field, outcome in COUNTERS.items():
        assert system[field] == (run.count(outcome=outcome) if outcome else run.acts.total()), field
    causes: Counter[str] = Counter()
    for name, number in run.acts.items():
        if ACTS[name].cause:
            causes[ACTS[name].cause] += number
    assert system["errors_by_cause"] == causes
    for cause, number in causes.items():
        assert samples["olla_request_errors_total", (("cause", cause),)] == number
    for provider, path in {"openai": CHAT, "anthropic": MESSAGES}.items():
        for outcome in Outcome:
            wanted = run.count(path=path, outcome=outcome)
            key = ("olla_request_outcomes_total", (("outcome", outcome.value), ("provider", provider)))
            assert samples.get(key, 0) == wanted
        assert samples["olla_request_duration_seconds_count", (("provider", provider),)] == run.count(path=path)
    assert samples["olla_total_traffic_bytes", ()] == run.body_bytes
    good = run.count(outcome=Outcome.SUCCESS)
    assert system["success_rate"] == f"{100 * good / (good + failed):.1f}%"
    assert samples["olla_success_rate_percent", ()] == pytest.approx(100 * good / (good + failed))
    assert samples["olla_hang_ups_total", ()] == run.count(outcome=Outcome.CLIENT_GONE)
    for reason in ("status_503", "nothing_received"):
        wanted = sum(number for name, number in run.acts.items()
                     for tried in ACTS[name].attempts[:-1] if tried.cause == reason)  # fmt: skip
        assert samples["olla_retries_total", (("reason", reason),)] == wanted > 0


def check_models(run, stats, samples):
    rows = {row["name"]: row for row in stats["models"]}
    assert set(rows) == {named(act) for act in ACTS.values() if named(act)}
    fields = {"successful_requests": (Outcome.SUCCESS,), "failed_requests": FAILED,
              "rejected_requests": (Outcome.REJECTED,), "hang_ups": (Outcome.CLIENT_GONE,)}  # fmt: skip
    for name, row in rows.items():
        mine = {key: number for key, number in run.acts.items() if named(ACTS[key]) == name}
        assert row["total_requests"] == sum(mine.values())
        assert samples["olla_model_requests_total", (("model", name),)] == sum(mine.values())
        for field, outcomes in fields.items():
            assert row[field] == sum(mine[key] for key in mine if ACTS[key].outcome in outcomes), (name, field)
        found = sum(number for key, number in mine.items() if ACTS[key].attempts)
        assert (row["routing_hits"], row["routing_misses"]) == (found, sum(mine.values()) - found), name
        assert samples["olla_model_routing_hits_total", (("model", name),)] == found
        for side, at in {"input": 0, "output": 1}.items():
            told = sum(number * tokens_of(ACTS[key])[at] for key, number in mine.items())
            assert row[f"{side}_tokens"] == told, (name, side)
            assert samples["olla_tokens_total", (("direction", side), ("model", name))] == told
    unnamed = sum(number for name, number in run.acts.items() if not named(ACTS[name]))  # refused unread
    assert (
        stats["summary"]["total_requests"]
        == run.acts.total() - unnamed
        == samples["olla_models_requests_total", ()]
    )


def tokens_of(act):
    """What a backend counts of one request: input, output."""
    if act.outcome is not Outcome.SUCCESS or act.stream:
        return (0, 0)
    return (5, 2) if act.mode == "passthrough" else (7, 3)


def check_endpoints(run, rows, samples):
    answered: Counter[str] = Counter()
    for name, exchange in run.told.values():
        if is_answered(ACTS[name]):
            answered[ACTS[name].attempts[-1].endpoint] += len(exchange.body)
    for row in rows:
        family, here = "olla_model_endpoint_requests_total", ("endpoint", row["name"])
        pairs = [value for (name, labels), value in samples.items() if name == family and here in labels]
        assert sum(pairs) == row["request_count"]
        at = {"endpoint": row["name"], "endpoint_id": row["id"]}
        assert row["request_count"] == run.attempts(endpoint=row["name"])
        traffic = tuple(sorted(at.items()))
        # The parser ends every counter so; the text has the reference's name.
        assert samples["olla_endpoint_traffic_bytes_total", traffic] == answered[row["name"]]
        assert row["hang_ups"] == run.attempts(endpoint=row["name"], outcome="client_gone")
        assert row["failures"] == run.attempts(endpoint=row["name"], outcome="failure")
        for outcome in ("success", "failure", "rejected", "client_gone"):
            key = tuple(sorted({**at, "outcome": outcome}.items()))
            assert samples["olla_attempts_total", key] == run.attempts(endpoint=row["name"], outcome=outcome)
        for cause, number in row["errors_by_cause"].items():
            assert number == run.attempts(endpoint=row["name"], cause=cause)
        assert row["active_connections"] == 0


def check_translator(run, stats, samples):
    [row] = stats["translators"]
    wanted = run.count(path=MESSAGES)
    assert (row["total_requests"], row["successful_requests"]) == (wanted, wanted)
    for mode in ("translation", "passthrough"):
        key = (("mode", mode), ("translator", "anthropic"))
        wanted_so = run.count(mode=mode)
        assert row[f"{mode}_requests"] == wanted_so == samples["olla_translator_requests_total", key] > 0
    assert samples["olla_translator_successes_total", (("translator", "anthropic"),)] == wanted


def check_sessions(run, stats, samples):
    kinds = Counter(row.sticky for row in run.log)
    # Whoever is tried elsewhere had no session before, and has moved it by the end.
    assert kinds["repin"] == run.acts["retried"] + run.acts["dropped"]
    for field, count in {"hits": kinds["hit"], "misses": kinds["miss"] + kinds["repin"]}.items():
        assert stats[field] == count == samples[f"olla_sticky_{field}_total", ()]
    sticky = [exchange for name, exchange in run.told.values() if name == "sticky"]
    told = Counter(exchange.header("x-olla-sticky-session") for exchange in sticky)
    assert told["miss"] >= 1
    assert told["hit"] + told["miss"] == run.acts["sticky"]
    assert stats["insertions"] == samples["olla_sticky_insertions_total", ()]


def check_line_and_limits(run, system, samples):
    waited = run.acts["queued"] // QUEUED * (QUEUED - 1)
    assert system["queue"]["served"] == waited == samples["olla_queue_served_total", ()]
    assert samples["olla_queue_wait_seconds_count", ()] == waited
    assert (system["queue"]["refused"], system["queue"]["timed_out"], system["queue"]["waiting"]) == (0, 0, 0)
    limited = run.acts["limited"]
    assert samples["olla_rate_limited_total", (("limit", "concurrent"),)] == limited
    assert samples["olla_security_rate_limit_violations_total", ()] == limited
    answered = sum(number for name, number in run.acts.items() if is_answered(ACTS[name]))
    assert samples["olla_time_to_first_byte_seconds_count", ()] == answered
    assert samples["olla_streams_total", ()] == run.count(stream=True)
    assert samples["olla_overhead_seconds_count", ()] == answered


def is_answered(act):
    """Whether a first byte of a backend's answer came to the client."""
    return bool(act.attempts) and act.leaves != "at once" and act.cause != "upstream_unreachable"


def has_failed(tried):
    """Whether an attempt has an error of its own, rather than a status or nothing to tell."""
    return bool(tried.cause) and not tried.cause.startswith("status_")


def check_log(run):
    assert len(run.log) == run.acts.total()
    outcomes = Counter(row.outcome for row in run.log)
    assert outcomes == {each.value: run.count(outcome=each) for each in Outcome}
    assert sum(row.attempts for row in run.log) == run.attempts()
    tallies = live.tallies
    for field, side in {"input_tokens": "input", "output_tokens": "output"}.items():
        assert sum(getattr(row, field) or 0 for row in run.log) == sum(
            getattr(tally, field) for tally in tallies.models.values()
        ), side


def check_sums(run, sums):
    """What outlives the process."""
    assert (sums.requests, sums.attempts) == (run.acts.total(), run.attempts())
    assert (sums.streams, sums.response_bytes) == (run.count(stream=True), run.body_bytes)
    by_outcome = [sums.successes, sums.backend_errors, sums.rejected, sums.broken, sums.clients_gone]
    outcomes = (Outcome.SUCCESS, Outcome.BACKEND_ERROR, Outcome.REJECTED, Outcome.BROKEN, Outcome.CLIENT_GONE)
    assert by_outcome == [run.count(outcome=each) for each in outcomes]
    told = [sum(number * tokens_of(ACTS[name])[at] for name, number in run.acts.items()) for at in (0, 1)]
    assert [sums.input_tokens, sums.output_tokens] == told


def check_rows(run):
    """Each row says what its own client saw and what the script foresaw."""
    rows = {row.request_id: row for row in run.log}
    assert rows.keys() == run.told.keys()
    for key, (name, exchange) in run.told.items():
        act, row = ACTS[name], rows[key]
        tried = [(each["endpoint"], bool(each["error"])) for each in json.loads(row.attempt_notes or "[]")]
        foreseen = [(each.endpoint, has_failed(each)) for each in act.attempts]
        assert tried == foreseen, (name, row.attempt_notes)
        assert (row.outcome, row.attempts) == (act.outcome, len(act.attempts)), name
        assert row.endpoint == (act.attempts[-1].endpoint if act.attempts else ""), name
        assert row.status == (None if act.leaves == "at once" else exchange.status), name
        assert row.error_code == (act.cause if act.cause in set(ErrorCode) else ""), name
        assert (row.stream, row.mode) == (act.stream, act.mode), name
        assert row.model == ("" if act.client == GREEDY else act.model)
        assert row.response_bytes == len(exchange.body), name
        assert (row.queue_ms > 0) == (act.queues and exchange.header("x-olla-queue-wait") is not None), name


def record(**changes: Any) -> RequestRecord:
    """A success of model m at an endpoint that lists it."""
    endpoint = changes.pop("at", None) or make_endpoint("gpu", models=["m"])
    attempt = AttemptNote(endpoint, 100.0, seconds=0.2, status=200, verdict="good")
    values: dict[str, Any] = {
        "model": "m", "sent_model": "m", "attempts": [attempt], "answered": attempt, "status": 200,
        "seconds": 0.25, "first_byte": 0.1, "response_bytes": 10, "outcome": Outcome.SUCCESS, "client": "10.0.0.1",
    }  # fmt: skip
    return RequestRecord("r", 1e9, 100.0, "POST", CHAT, "openai", **{**values, **changes})


def show(counted: Any) -> Any:
    """All that was counted, in plain values that compare."""
    if isinstance(counted, float):
        return pytest.approx(counted)
    if isinstance(counted, dict):
        return {key: show(value) for key, value in counted.items()}
    slots = chain.from_iterable(vars(each).get("__slots__", ()) for each in type(counted).__mro__)
    names = [*getattr(counted, "__dict__", ()), *slots]
    return {name: show(getattr(counted, name)) for name in names} if names else counted


FLEET = [make_endpoint(f"gpu{number}", models=["m", "n"], id=number) for number in range(3)]
A_TRY = st.builds(
    AttemptNote, st.sampled_from(FLEET), st.floats(100, 101), seconds=st.floats(0, 9), status=st.just(200)
)
TRIES = st.one_of(st.lists(A_TRY, min_size=1, max_size=1), st.lists(A_TRY, max_size=3))


@st.composite
def draw_record(draw: st.DrawFn) -> RequestRecord:
    """Mostly successes at the first attempt, of a few kinds."""
    tries, is_answered = draw(TRIES), draw(st.booleans())
    return record(
        attempts=tries, answered=tries[-1] if tries and is_answered else None,
        outcome=draw(st.sampled_from([Outcome.SUCCESS, Outcome.SUCCESS, Outcome.SUCCESS, *Outcome])),
        model=draw(st.sampled_from(["m", "M", "n", None])), stream=draw(st.booleans()),
        seconds=draw(st.floats(0, 1e4)), first_byte=draw(st.one_of(st.none(), st.floats(0, 1e3))),
        response_bytes=draw(st.integers(0, 1000)), response_chunks=draw(st.integers(0, 3)),
        queue_wait=draw(st.sampled_from([0.0, 1.5])), client=draw(st.sampled_from(["10.0.0.1", "10.0.0.2"])),
        usage=draw(st.sampled_from([None, Usage(3, 4), Usage(None, 5, tokens_per_second=30.0)])),
        sent_model=draw(st.sampled_from(["m", "n", None])),
    )  # fmt: skip


@given(st.lists(draw_record(), max_size=40), st.integers(1, 40))
def test_it_counts_many_at_once_as_one_by_one(records, together):
    alone, grouped = Tallies(), Tallies()
    for number, each in enumerate(records):
        each.at = number / 100 - each.seconds
        alone.note([each])
    for first in range(0, len(records), together):
        grouped.note(records[first : first + together])
    assert show(grouped) == show(alone)
    assert grouped.all.requests == len(records)


def test_it_counts_all_others_told_with_one_it_cannot_count(caplog):
    absurd = record(usage=Usage(1, 10**400), stream=True)
    tallies = Tallies()
    tallies.note([record(), absurd, record(), record(outcome=Outcome.BROKEN)])
    [pair] = tallies.pairs.values()
    assert pair.requests == 3
    assert tallies.all.latency.count == 2
    assert "cannot be counted" in caplog.text


def test_it_counts_an_alias_and_any_spelling_as_the_model_that_was_sent():
    tallies = Tallies()
    for sent in ("m", "M", " m "):
        tallies.note([record(model="alias", sent_model=sent)])
    assert {name: tally.requests for name, tally in tallies.models.items()} == {"m": 3}


def test_it_counts_a_model_nobody_could_answer_for_under_its_name_once_that_is_known():
    tallies = Tallies()
    failed: dict[str, Any] = {"attempts": [], "answered": None, "sent_model": None, "status": 503}
    failed["outcome"] = Outcome.BACKEND_ERROR
    tallies.note([record(**failed)])
    tallies.note([record()])
    tallies.note([record(**failed)])
    assert {name: tally.requests for name, tally in tallies.models.items()} == {OTHER: 1, "m": 2}


def test_it_keeps_no_more_models_than_it_may():
    tallies = Tallies()
    names = [f"m{number}" for number in range(MOST_MODELS + 50)]
    endpoint = make_endpoint("gpu", models=names)
    for name in names:
        tallies.note([record(at=endpoint, model=name, sent_model=name)])
    assert len(tallies.models) == MOST_MODELS + 1
    assert tallies.models[OTHER].requests == 50
    assert sum(tally.requests for tally in tallies.models.values()) == len(names)


def test_it_counts_each_client_once_and_no_more_than_it_may():
    tallies = Tallies()
    for number in range(MOST_CLIENTS + 10):
        tallies.note([record(client=f"10.0.{number // 256}.{number % 256}")])
        tallies.note([record(client="10.0.0.0")])
    assert len(tallies.models["m"].clients) == MOST_CLIENTS


def test_it_resets_failures_in_a_row_by_a_success():
    tallies = Tallies()
    for outcome in (Outcome.BROKEN, Outcome.BROKEN, Outcome.REJECTED):
        tallies.note([record(outcome=outcome)])
    [pair] = tallies.pairs.values()
    assert pair.failures_in_a_row == 2
    tallies.note([record()])
    assert (pair.failures_in_a_row, pair.failures, pair.requests) == (0, 2, 4)


def test_it_measures_an_endpoint_from_its_own_attempt_on():
    tallies = Tallies()
    late = AttemptNote(make_endpoint("gpu", models=["m"]), 100.06, seconds=0.19, status=200)
    tallies.note([record(attempts=[late], answered=late, queue_wait=0.05)])
    [endpoint] = tallies.endpoints.values()
    assert endpoint.latency.total == pytest.approx(190)
    assert endpoint.first_byte.total == pytest.approx(40)
    assert tallies.all.latency.total == pytest.approx(250)
    assert tallies.overhead.total == pytest.approx(0.01)
    assert tallies.queue_wait.total == pytest.approx(0.05)


def test_it_tells_the_gap_between_chunks_of_streams():
    tallies = Tallies()
    tallies.note([record(stream=True, response_chunks=16)])
    tallies.note([record(stream=False, response_chunks=16)])
    assert (tallies.chunk_gap.count, tallies.streams) == (1, 1)
    assert tallies.chunk_gap.total == pytest.approx(0.15 / 15)


def test_it_forgets_endpoints_that_are_gone_only_when_there_are_many(monkeypatch):
    monkeypatch.setattr("proxy.tallies.MOST_ENDPOINTS", 2)
    tallies = Tallies()
    for number in range(3):
        tallies.note([record(at=make_endpoint("gpu", models=["m"], id=number))])
        tallies.retain({number})
    assert set(tallies.endpoints) == {2}
    assert {key[1] for key in tallies.pairs} == {2}
    assert tallies.all.requests == 3


def test_it_takes_no_more_memory_for_more_requests(long_form):
    tallies, dice = Tallies(), random.Random(3)
    endpoints = [make_endpoint(f"gpu{n}", models=[f"m{m}" for m in range(40)], id=n) for n in range(20)]

    def load(count: int) -> tuple[int, ...]:
        for _ in range(count):
            name = f"m{dice.randrange(80)}"
            one = record(
                at=dice.choice(endpoints), model=name, sent_model=name, client=f"10.0.0.{dice.randrange(250)}",
                seconds=10 ** dice.uniform(-3, 3), outcome=dice.choice(list(Outcome)), status=200,
                error_code=f"code{dice.randrange(500)}",
            )  # fmt: skip
            tallies.note([one])
        sketches = [tally.latency for tally in (*tallies.models.values(), *tallies.endpoints.values())]
        return (
            len(tallies.models),
            len(tallies.endpoints),
            len(tallies.pairs),
            max(len(sketch.counts) for sketch in sketches),
        )

    load(3000)
    models, fleet, pairs, buckets = load(200_000 if long_form else 5000)
    assert (models, fleet) == (41, 20)
    assert pairs <= 20 * 41 < MOST_PAIRS
    assert buckets < 1600
    assert max(len(tally.causes) for tally in tallies.models.values()) <= 65


async def test_it_is_read_in_a_thread_while_it_counts(long_form):
    endpoints = [make_endpoint(f"gpu{n}", models=[f"m{n}"], id=n) for n in range(40)]
    picture = Picture(
        make_snapshot(*endpoints), make_view(), LoaderHealth(NOW, NOW, ""), Live(), Violations(), NOW, 0.0
    )
    done = threading.Event()

    def count() -> None:
        dice = random.Random(5)
        while not done.is_set():
            endpoint = dice.choice(endpoints)
            name, code = f"m{endpoint.id}", f"c{dice.randrange(50)}"
            one = record(
                at=endpoint, model=name, sent_model=name, seconds=dice.random(), error_code=code,
                outcome=dice.choice(list(Outcome)),
            )  # fmt: skip
            picture.tallies.note([one])

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for _ in range(100 if long_form else 3):
            write_metrics(build_metrics(picture))
            build_status(picture)
            build_model_stats(picture, include_endpoints=True, include_summary=True)
    finally:
        done.set()
        counting.join()
    assert build_status(picture)["system"]["total_requests"] == picture.tallies.all.requests > 0
