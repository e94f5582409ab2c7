"""The playground: requests go from the browser through the real path; this page brings the form and names."""

from __future__ import annotations

import time

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from endpoints import loading
from olla_site.portal.access import Right, page
from olla_site.portal.offered import choose_example, offer_endpoints, offer_models

LONGEST_NAME = 500


@page(Right.TRY)
def playground(request: HttpRequest) -> HttpResponse:
    """The form; `?model=` chooses the model, else it is one that chats."""
    snapshot = loading.current()
    asked = request.GET.get("model", "")[:LONGEST_NAME]
    context = {
        "model": asked or choose_example(snapshot.endpoints, time.time()),
        "models": offer_models(snapshot),
        "endpoints": offer_endpoints(snapshot),
        "columns": ("a", "b"),
        "has_endpoints": bool(snapshot.endpoints),
    }
    return render(request, "portal/playground.html", context)
