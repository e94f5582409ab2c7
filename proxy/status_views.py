"""`/internal/*` and `/version`: what the product says of itself."""

from __future__ import annotations

import time

from django.http import HttpResponse

from endpoints.profiles import PREFIXES
from proxy.admission import admission
from proxy.product import NAME, VERSION
from proxy.views import APIRequest, json_answer, require_reading


async def health(request: APIRequest) -> HttpResponse:
    """`/internal/health`: this process answers, whatever its backends do."""
    require_reading(request)
    admission.admit_health(request, time.time())
    return json_answer({"status": "healthy"})


async def version(request: APIRequest) -> HttpResponse:
    """`/version`: name, version and the routes there are."""
    require_reading(request)
    routes = {"proxy": "/olla/proxy/", "models": "/olla/models", "health": "/internal/health"}
    return json_answer({
        "name": f"{NAME} for Django",
        "version": VERSION,
        "api": routes,
        "providers": [f"/olla/{prefix}/" for prefix in PREFIXES],
    })  # fmt: skip
