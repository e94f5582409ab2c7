"""One endpoint's own page: how it is, its history, its models, its last errors and changes."""

from __future__ import annotations

import time

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone

from endpoints import loading
from endpoints.models import EndpointHealth
from endpoints.operations import prober_state
from endpoints.snapshot import EndpointRecord
from olla_site.portal.access import page
from olla_site.portal.activity import activity
from olla_site.portal.picture import draw_row, read_probes
from olla_site.portal.tally import STEP, STEPS, Scope

MODELS_SHOWN = 500
_OF_DISCOVERY = ("models_checked", "models_error", "models_note")


def find_endpoint(pk: int) -> EndpointRecord:
    """The endpoint as routing sees it. Raises Http404."""
    found = loading.current().by_id.get(pk)
    if found is None:
        raise Http404
    return found


@page()
def endpoint(request: HttpRequest, pk: int) -> HttpResponse:
    """The page."""
    record = find_endpoint(pk)
    probes = read_probes(pk)
    prober = prober_state(timezone.now())
    scope = activity.tally.endpoints.get(pk) or Scope()
    context = {
        "endpoint": record,
        "row": draw_row(record, probes.get(pk), prober.seen, time.time()),
        "reason": (probes[pk].error if pk in probes else "") or record.last_error,
        "prober": prober,
        "models": sorted(record.models, key=lambda model: model.name.lower())[:MODELS_SHOWN],
        "models_left_out": max(0, len(record.models) - MODELS_SHOWN),
        "discovery": EndpointHealth.objects.filter(pk=pk).values(*_OF_DISCOVERY).first(),
        "errors": list(reversed(list(scope.errors))),
        "changes": list(reversed(list(activity.changes.get(pk, ())))),
        "may_edit": request.user.is_staff and request.user.has_perm("endpoints.change_endpoint"),
    }
    return render(request, "portal/endpoint.html", context)


@page()
def history(request: HttpRequest, pk: int) -> JsonResponse:
    """The last quarter of an hour, step by step, for the charts."""
    find_endpoint(pk)
    now = time.time()
    scope = activity.tally.endpoints.get(pk) or Scope()
    first = (int(now // STEP) - STEPS) * STEP
    return JsonResponse({"from": first, "step": STEP, "series": scope.history(now)})
