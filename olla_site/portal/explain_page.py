"""Explain: a form over `proxy.rehearsal`, and its answer as a table people can read."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render

from endpoints import loading
from olla_site.portal.access import page
from olla_site.portal.offered import offer_models
from proxy.decision_words import STAGES, TRY_WHY, describe_dropped, describe_reason
from proxy.errors import OllaError
from proxy.explain_views import Question, build_asked, parse_header_lines
from proxy.rehearsal import explain as rehearse

# What clients ask for most, offered beside the address field.
COMMON_PATHS = (
    "/olla/openai/v1/chat/completions",
    "/olla/openai/v1/embeddings",
    "/olla/ollama/api/chat",
    "/olla/ollama/api/generate",
    "/olla/anthropic/v1/messages",
    "/olla/proxy/v1/chat/completions",
)
METHODS = ("POST", "GET", "DELETE")
LONGEST = 8000  # characters of one field; what does not fit an address is for the command

RANDOM = {
    "dice": "A rule shares requests out by chance: the next one may go to the other side.",
    "turn": "Equal endpoints take turns: the next request may begin with another one.",
    "queue": "Every candidate is full: whoever has room first gets it.",
    "discovery": "Models would be read anew first; this is what follows if that finds nothing new.",
}


@page()
async def explain(request: HttpRequest) -> HttpResponse:
    """The form, and the explanation of what it asks. Runs on the loop, where the live counters are."""
    asked = request.GET
    context: dict[str, Any] = {
        "asked": asked,
        "paths": COMMON_PATHS,
        "methods": METHODS,
        "models": offer_models(loading.current()),
        "own_address": request.META.get("REMOTE_ADDR", ""),
    }
    if asked.get("path"):
        try:
            context["told"] = tell(rehearse(build_asked(read_question(asked), context["own_address"])))
        except OllaError as error:
            context["problem"] = error.message
    answer: HttpResponse = await sync_to_async(render)(request, "portal/explain.html", context)
    return answer


def read_question(asked: QueryDict) -> Question:
    """The form's fields as a question; empty fields do not count. Raises OllaError."""
    fields = {name: (asked.get(name) or "").strip()[:LONGEST] for name in ("path", "method", "model", "client")}
    body = (asked.get("body") or "")[:LONGEST]
    lines = [line for line in (asked.get("headers") or "")[:LONGEST].splitlines() if line.strip()]
    return Question(
        path=fields["path"],
        method=fields["method"],
        model=fields["model"] or None,
        headers=parse_header_lines(lines),
        client=fields["client"] or None,
        body=body if body.strip() else None,
    )


def tell(told: dict[str, Any]) -> dict[str, Any]:
    """The explanation with words in the place of its codes, endpoints in the order they matter."""
    told = dict(told)
    told["stage_words"] = STAGES[told["stage"]]
    told["reason_words"] = describe_reason(told.get("reason") or "")
    if "endpoints" not in told:
        return told
    why = {each["endpoint"]: TRY_WHY[each["why"]] for each in told["tries"]}
    rows = [
        {**each, "reason": describe_dropped(each["dropped"] or ""), "why": why.get(each["name"], "")}
        for each in told["endpoints"]
    ]
    # Those that would be tried first, then other candidates, then the rest; each in the snapshot's own order.
    told["endpoints"] = sorted(rows, key=lambda row: (row["try"] or 10**6, row["tier"] or 10**6))
    told["random_words"] = [RANDOM[each] for each in told["random"]]
    told["kept"] = sum(bool(row["kept"]) for row in rows)
    return told
