"""How to use this server: its addresses, what to paste into clients, a check, and how another portal embeds it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from endpoints import loading
from endpoints.snapshot import EndpointRecord
from olla_site.portal.access import page
from olla_site.portal.explain_page import model_names
from olla_site.portal.snippets import build_embedding, build_snippets

# Parts of names by which models that do not chat are told from those that do, for the example only.
_NOT_CHAT = ("embed", "rerank", "bge-", "whisper", "tts", "clip", "stable-diffusion", "dall-e", "moderation")
_LONGEST_NAME = 500


@page()
def connect(request: HttpRequest) -> HttpResponse:
    """The page, for the model chosen or one that fits."""
    snapshot = loading.current()
    base = request.build_absolute_uri("/").rstrip("/")
    asked = request.GET.get("model", "").strip()[:_LONGEST_NAME]
    model = asked or choose_example(snapshot.endpoints, time.time())
    context = {
        "base": base,
        "model": model,
        "models": model_names(snapshot),
        "snippets": build_snippets(base, model or "MODEL"),
        "embedding": build_embedding(base, model or "MODEL"),
        "any_origin": settings.CORS_ALLOW_ALL_ORIGINS,
        "origins": settings.CORS_ALLOWED_ORIGINS,
    }
    return render(request, "portal/connect.html", context)


def choose_example(endpoints: Iterable[EndpointRecord], now: float) -> str:
    """A model for a request to try: of an endpoint that takes requests, preferably one that chats."""
    ordered = list(endpoints)
    ordered = [each for each in ordered if each.takes_traffic(now)] or ordered
    names = [model.name for each in ordered for model in each.models]
    chatting = [name for name in names if not any(part in name.lower() for part in _NOT_CHAT)]
    return next(iter(chatting or names), "")
