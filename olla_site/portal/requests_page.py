"""The request log for the team: newest first, filtered, searched, live while it is looked at; and one request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse

from endpoints import loading
from endpoints.conf import conf
from endpoints.models import Endpoint
from endpoints.status_text import Tone
from olla_site.portal.access import page
from olla_site.portal.asked import read_key
from proxy.decision_words import describe_error, describe_trace, write_ms
from proxy.journal import journal_state
from proxy.log_pages import Cursor, fetch, known_models, parse_cursor, read_column
from proxy.models import RequestLog, key_at
from proxy.record import Outcome

PAGE = 50
MOST_AT_ONCE = 200  # rows a live page is given at one look
# Rows are written a moment after requests end, by several processes: a look reaches back this many seconds.
LATE = 5.0
SPANS = {"900": "15 minutes", "3600": "hour", "86400": "day", "604800": "7 days"}
OUTCOMES = {
    Outcome.SUCCESS: ("success", Tone.GOOD),
    Outcome.REJECTED: ("rejected", Tone.WARN),
    Outcome.BACKEND_ERROR: ("backend error", Tone.BAD),
    Outcome.BROKEN: ("broken off", Tone.BAD),
    Outcome.CLIENT_GONE: ("client left", Tone.QUIET),
}
_ENDPOINTS_OFFERED = 500
_FILTERS = ("outcome", "endpoint", "model", "within", "q")
_WIDTH = 1000  # of a waterfall's bars, in the units of its drawing


@page()
def requests(request: HttpRequest) -> HttpResponse:
    """The list, at most six queries however long the log is."""
    chosen, cursor = read_filters(request.GET), parse_cursor(request.GET)
    rows = fetch(narrow(chosen), cursor, PAGE + 1, chosen.get("q", ""))
    more, walking_back = len(rows) > PAGE, cursor.after is not None
    rows = rows[-PAGE:] if walking_back else rows[:PAGE]
    context = {
        "rows": [draw(row) for row in rows],
        "chosen": chosen,
        "older": _link(chosen, before=rows[-1].pk) if rows and (more or walking_back) else "",
        "newer": _link(chosen, after=rows[0].pk) if rows and (cursor.before or (walking_back and more)) else "",
        "is_newest": cursor == Cursor(),
        "filters": urlencode(chosen),
        "newest": rows[0].pk if rows else key_at(time.time()),
        "outcomes": [(each.value, words) for each, (words, _) in OUTCOMES.items()],
        "spans": SPANS.items(),
        "models": known_models(),
        "endpoints": list(Endpoint.objects.order_by("name").values_list("pk", "name")[:_ENDPOINTS_OFFERED]),
        "journal": journal_state(),
        "days": conf().request_log_days,
    }
    return render(request, "portal/requests.html", context)


@page()
def rows(request: HttpRequest) -> HttpResponse:
    """The rows that came after a key, and a little before: a live page leaves out those it has."""
    chosen, cursor = read_filters(request.GET), parse_cursor(request.GET)
    found: list[RequestLog] = []
    if cursor.after is not None:
        # The newest of what came: a page that slept is not sent thousands of rows.
        since = cursor.after - key_at(LATE)
        found = fetch(narrow(chosen).filter(id__gt=since), Cursor(), MOST_AT_ONCE, chosen.get("q", ""))
    return render(request, "portal/parts/request_rows.html", {"rows": [draw(row) for row in found], "fresh": True})


@page()
def one_request(request: HttpRequest, key: int) -> HttpResponse:
    """One request: what it was, what became of it, and why."""
    row = RequestLog.objects.filter(pk=key).first() if key < 2**63 else None
    if row is None:
        raise Http404
    trace, notes = read_column(row.trace) or {}, read_column(row.attempt_notes) or []
    metrics = read_column(row.metrics) or {}
    context = {
        "row": draw(row),
        "log": row,
        "decision": describe_trace(trace) if trace else [],
        "bars": draw_waterfall(notes, row.total_ms, row.first_byte_ms),
        "metrics": sorted((name, value) for name, value in metrics.items() if name != "model"),
        "endpoint_page": endpoint_page(row.endpoint_id),
        "explain": _explain_link(row),
        "others": [
            (f"{name} {shown}", _link({field: value}))
            for name, shown, field, value in (
                ("of the client", row.client, "q", row.client),
                ("for the model", row.model, "model", row.model),
                ("at", row.endpoint, "endpoint", str(row.endpoint_id or "")),
            )
            if value
        ],
    }
    return render(request, "portal/request.html", context)


@page()
def find_request(request: HttpRequest, request_id: str) -> HttpResponse:
    """The newest request of that id, as a client reads it off X-Olla-Request-ID."""
    found = RequestLog.objects.filter(request_id=request_id).order_by("-id").values_list("pk", flat=True).first()
    if found is None:
        raise Http404
    answer: HttpResponse = one_request(request, found)
    return answer


def endpoint_page(pk: int | None) -> str:
    """The address of an endpoint's own page; empty when it is gone."""
    return reverse("portal:endpoint", args=[pk]) if pk in loading.current().by_id else ""


def read_filters(values: QueryDict) -> dict[str, str]:
    """The filters that mean something; anything else is left out."""
    chosen = {name: values.get(name, "").strip()[:200] for name in _FILTERS}
    if chosen["outcome"] not in tuple(Outcome):
        chosen["outcome"] = ""
    if read_key(chosen["endpoint"]) is None:
        chosen["endpoint"] = ""
    if chosen["within"] not in SPANS:
        chosen["within"] = ""
    return {name: value for name, value in chosen.items() if value}


def narrow(chosen: dict[str, str]) -> QuerySet[RequestLog]:
    """The rows the filters leave."""
    found: QuerySet[RequestLog] = RequestLog.objects.all()
    if outcome := chosen.get("outcome"):
        found = found.filter(outcome=outcome)
    if endpoint := chosen.get("endpoint"):
        found = found.filter(endpoint_id=int(endpoint))
    if model := chosen.get("model"):
        found = found.filter(model=model)
    if within := chosen.get("within"):
        found = found.filter(id__gte=key_at(time.time() - int(within)))
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One request as the list shows it."""

    key: int
    came: datetime
    request_id: str
    outcome: str
    tone: Tone
    status: str
    model: str
    endpoint: str
    client: str
    method: str
    path: str
    total: str
    first_byte: str
    tokens: str
    attempts: int
    error: str
    stream: bool


def draw(row: RequestLog) -> Row:
    """A row of the table in words."""
    words, tone = OUTCOMES.get(Outcome(row.outcome), (row.outcome, Tone.QUIET))
    return Row(
        key=row.pk,
        came=row.time,
        request_id=row.request_id,
        outcome=words,
        tone=tone,
        status=str(row.status or ""),
        model=row.model,
        endpoint=row.endpoint,
        client=row.client,
        method=row.method,
        path=row.path,
        total=write_ms(row.total_ms),
        first_byte=write_ms(row.first_byte_ms),
        tokens="" if row.total_tokens is None else f"{row.total_tokens:,}",
        attempts=row.attempts,
        error=row.error_code,
        stream=row.stream,
    )


def draw_waterfall(notes: list[dict[str, Any]], total: float, first_byte: float | None) -> list[dict[str, Any]]:
    """The attempts as bars: places and widths in thousandths of the request's time."""
    scale = _WIDTH / total if total > 0 else 0.0

    def place(value: float) -> float:
        return round(min(max(value * scale, 0.0), _WIDTH), 2)

    bars = []
    for number, note in enumerate(notes, 1):
        began, waited = note["began_ms"], note["waited_ms"]
        ended = total if note["ms"] is None else began + note["ms"]
        failed = note["verdict"] == "failed" or bool(note["error"])
        start, stop = place(began), place(ended)
        bars.append({
            "number": number,
            "name": note["endpoint"],
            "wait_x": place(began - waited),
            "wait_width": round(start - place(began - waited), 2),
            "x": start,
            "width": max(round(stop - start, 2), 2),
            "first": place(first_byte) if first_byte is not None and number == len(notes) else None,
            "failed": failed,
            "words": _attempt_words(note),
        })  # fmt: skip
    return bars


def _attempt_words(note: dict[str, Any]) -> str:
    parts = [f"HTTP {note['status']}" if note["status"] else "no answer"]
    if note["error"]:
        parts.append(describe_error(note["error"]))
    if note["waited_ms"]:
        parts.append(f"waited {write_ms(note['waited_ms'])} in line")
    if note["ms"] is not None:
        parts.append(write_ms(note["ms"]))
    return ", ".join(parts)


def _link(chosen: dict[str, str], **cursor: int) -> str:
    return f"{reverse('portal:requests')}?{urlencode({**chosen, **cursor})}"


def _explain_link(row: RequestLog) -> str:
    asked = {"path": row.path, "method": row.method, "model": row.model, "client": row.client}
    return f"{reverse('portal:explain')}?{urlencode({name: value for name, value in asked.items() if value})}"
