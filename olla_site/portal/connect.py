"""The addresses for clients, and a request to try."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from endpoints import loading
from endpoints.snapshot import EndpointRecord
from olla_site.portal.access import page

# Parts of names by which models that do not chat are told from those that do, for the example only.
_NOT_CHAT = ("embed", "rerank", "bge-", "whisper", "tts", "clip", "stable-diffusion", "dall-e", "moderation")


@page()
def connect(request: HttpRequest) -> HttpResponse:
    """How to use this server."""
    base = request.build_absolute_uri("/").rstrip("/")
    model = choose_example(loading.current().endpoints, time.time())
    context = {"base": base, "model": model, "curl": build_curl(base, model or "MODEL")}
    return render(request, "portal/connect.html", context)


def build_curl(base: str, model: str) -> str:
    """A request to paste into a shell; names with quotes in them stay one argument."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]}
    return (
        f"curl -N {base}/olla/openai/v1/chat/completions \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def choose_example(endpoints: Iterable[EndpointRecord], now: float) -> str:
    """A model for a request to try: of an endpoint that takes requests, preferably one that chats."""
    ordered = list(endpoints)
    ordered = [each for each in ordered if each.takes_traffic(now)] or ordered
    names = [model.name for each in ordered for model in each.models]
    chatting = [name for name in names if not any(part in name.lower() for part in _NOT_CHAT)]
    return next(iter(chatting or names), "")
