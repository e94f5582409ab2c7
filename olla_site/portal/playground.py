"""The playground: requests go from the browser through the real path; this page brings the form and names."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import escape

from endpoints import loading
from olla_site.portal.access import Right, page
from olla_site.portal.connect import choose_example
from olla_site.portal.explain_page import model_names

LONGEST_NAME = 500
# Bytes of names in each list: with them and all its files the page stays below 250 KB, whatever they are.
_ROOM = 30_000


@page(Right.TRY)
def playground(request: HttpRequest) -> HttpResponse:
    """The form; `?model=` chooses the model, else it is one that chats."""
    snapshot = loading.current()
    asked = request.GET.get("model", "")[:LONGEST_NAME]
    context = {
        "model": asked or choose_example(snapshot.endpoints, time.time()),
        "models": fit(model_names(snapshot)),
        "endpoints": fit(endpoint.name for endpoint in snapshot.endpoints),
        "columns": ("a", "b"),
        "has_endpoints": bool(snapshot.endpoints),
    }
    return render(request, "portal/playground.html", context)


def fit(names: Iterable[str], room: int = _ROOM) -> list[str]:
    """The first names that fit; the fields take any other name as well."""
    kept = []
    for name in names:
        # The words around each name, and what escaping and UTF-8 make of it.
        room -= len(escape(name).encode()) + 18
        if room < 0:
            break
        kept.append(name)
    return kept
