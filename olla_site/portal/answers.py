"""Answers to htmx and to forms without it."""

from __future__ import annotations

import json

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect

LEVELS = {
    "success": messages.SUCCESS,
    "info": messages.INFO,
    "warning": messages.WARNING,
    "error": messages.ERROR,
}


def is_htmx(request: HttpRequest) -> bool:
    """Whether htmx sent the request and wants a fragment."""
    return request.headers.get("HX-Request") == "true"


def say(response: HttpResponse, text: str, level: str = "success") -> HttpResponse:
    """Let the page that htmx is on show a toast."""
    response.headers["HX-Trigger"] = json.dumps({"olla:toast": {"text": text, "level": level}})
    return response


def done(request: HttpRequest, text: str, back: str, level: str = "success") -> HttpResponseBase:
    """The answer to an action: a toast where htmx sent it, else back to a page with a message."""
    if is_htmx(request):
        return say(HttpResponse(status=204), text, level)
    messages.add_message(request, LEVELS[level], text)
    return redirect(back)
