"""`/internal/*` and `/version`: what the product says of itself. Thin: `proxy.status` builds the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from typing import Any, Protocol

from django.http import HttpResponse

from endpoints import loading
from endpoints.conf import conf
from proxy.admission import admission
from proxy.live import live
from proxy.status.access import require_access
from proxy.status.conditional import conditional_answer, plain_answer, zipped_answer
from proxy.status.endpoint_rows import build_endpoints
from proxy.status.metric_sheet import CONTENT_TYPE, write_metrics
from proxy.status.metrics import build_metrics
from proxy.status.model_rows import build_models
from proxy.status.model_stats import build_model_stats
from proxy.status.overview import build_status
from proxy.status.picture import take_picture, uptime
from proxy.status.process_facts import build_process
from proxy.status.product_facts import build_version
from proxy.status.readiness import build_ready, read_readiness
from proxy.views import APIRequest, json_answer, require_reading


class StatusRequest(APIRequest, Protocol):
    """A request of this door whose session may be looked up."""

    @property
    def COOKIES(self) -> Mapping[str, str]:  # noqa: N802 - Django's name
        """The cookies sent."""


View = Callable[[StatusRequest], Coroutine[Any, Any, HttpResponse]]


def guarded(view: View) -> View:
    """A view that only reads, for those who may."""

    @wraps(view)
    async def guard(request: StatusRequest) -> HttpResponse:
        require_reading(request)
        await require_access(request.scope, request.COOKIES)
        return await view(request)

    return guard


async def aside(build: Callable[[], HttpResponse]) -> HttpResponse:
    """An answer built in a thread: with a thousand endpoints that takes long enough for requests to feel it."""
    return await asyncio.to_thread(build)


async def health(request: APIRequest) -> HttpResponse:
    """`/internal/health`: this process answers, whatever its backends do."""
    require_reading(request)
    admission.admit_health(request, time.time())
    return json_answer({"status": "healthy"})


async def ready(request: APIRequest) -> HttpResponse:
    """`/internal/ready`: whether requests can be routed; 503 when not, with what is amiss."""
    require_reading(request)
    admission.admit_health(request, time.time())
    readiness = read_readiness(
        loading.current().endpoints, live.view(), loading.health().confirmed_at, conf().ready_max_age
    )
    return plain_answer(build_ready(readiness), status=200 if readiness.is_ready else 503)


async def version(request: APIRequest) -> HttpResponse:
    """`/version`: name, version and the routes there are."""
    require_reading(request)
    return plain_answer(build_version())


@guarded
async def status(request: StatusRequest) -> HttpResponse:
    """`/internal/status`."""
    picture = await take_picture()
    return await aside(lambda: conditional_answer(request.raw_headers, build_status(picture)))


@guarded
async def endpoints(request: StatusRequest) -> HttpResponse:
    """`/internal/status/endpoints`."""
    picture = await take_picture()
    return await aside(lambda: conditional_answer(request.raw_headers, build_endpoints(picture)))


@guarded
async def models(request: StatusRequest) -> HttpResponse:
    """`/internal/status/models`; `detailed=true&group=family` adds every model under its family."""
    grouped = request.GET.get("detailed") == "true" and request.GET.get("group") == "family"
    picture = await take_picture()
    return await aside(lambda: conditional_answer(request.raw_headers, build_models(picture, grouped=grouped)))


@guarded
async def model_stats(request: StatusRequest) -> HttpResponse:
    """`/internal/stats/models`; `include_endpoints=true` and `include_summary=true` add endpoints."""
    picture = await take_picture()
    endpoints_too, summary_too = (
        request.GET.get(f"include_{part}") == "true" for part in ("endpoints", "summary")
    )
    return await aside(
        lambda: plain_answer(
            build_model_stats(picture, include_endpoints=endpoints_too, include_summary=summary_too)
        )
    )


@guarded
async def sticky_stats(_request: StatusRequest) -> HttpResponse:
    """`/internal/stats/sticky`."""
    return plain_answer(live.sticky.stats(time.monotonic()))


@guarded
async def translator_stats(request: StatusRequest) -> HttpResponse:
    """`/internal/stats/translators`; `lenient=true` counts every answer of a backend as a success."""
    return plain_answer(live.anthropic.report(lenient=request.GET.get("lenient") == "true"))


@guarded
async def metrics(request: StatusRequest) -> HttpResponse:
    """`/internal/metrics`."""
    picture = await take_picture()
    return await aside(
        lambda: zipped_answer(request.raw_headers, write_metrics(build_metrics(picture)), CONTENT_TYPE)
    )


@guarded
async def process(_request: StatusRequest) -> HttpResponse:
    """`/internal/process`."""
    return plain_answer(build_process(uptime()))
