"""The addresses for clients, and a request to try."""

from __future__ import annotations

import json
import shlex
import time

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from endpoints import loading
from olla_site.portal.access import page
from olla_site.portal.fleet_rows import choose_example


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
