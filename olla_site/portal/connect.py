"""How to use this server: its addresses, what to paste into clients, a check, and how another portal embeds it."""

from __future__ import annotations

import time

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from endpoints import loading
from olla_site.portal.access import page
from olla_site.portal.offered import choose_example, offer_models
from olla_site.portal.snippets import build_embedding, build_snippets

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
        "models": offer_models(snapshot),
        "snippets": build_snippets(base, model or "MODEL"),
        "embedding": build_embedding(base, model or "MODEL"),
        "any_origin": settings.CORS_ALLOW_ALL_ORIGINS,
        "origins": settings.CORS_ALLOWED_ORIGINS,
    }
    return render(request, "portal/connect.html", context)
