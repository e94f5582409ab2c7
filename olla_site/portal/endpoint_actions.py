"""Buttons of one endpoint: drain, resume, disable, probe now, read its models now.

The same work as the actions of the admin's list (`endpoints/operations.py`): buttons never write a status, they
ask the prober and wait for what it finds.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse

from endpoints.facts import health_of
from endpoints.health import ROUTABLE, OperatorState
from endpoints.models import Endpoint
from endpoints.operations import PROBE_WAIT_SECONDS, Ask, ask_prober, change_state, prober_state, wait_for_prober
from olla_site.portal.access import Right, action
from olla_site.portal.answers import done

NO_PROBER = "No prober is running. What you asked for is noted, and done as soon as one runs."


@dataclass(frozen=True, slots=True)
class Wish:
    """A state an operator wishes for, and how the answer tells it."""

    state: OperatorState
    told: str
    then_disable: bool = False


WISHES = {
    "drain": Wish(OperatorState.DRAINING, "draining: open requests finish, new ones go elsewhere"),
    "drain-then-disable": Wish(OperatorState.DRAINING, "draining, then disabled", then_disable=True),
    "resume": Wish(OperatorState.ACTIVE, "active: it takes requests again"),
    "disable": Wish(OperatorState.DISABLED, "disabled: no requests, no probes"),
}
ASKS = {"probe": Ask.PROBE, "discover": Ask.DISCOVERY}


@action(Right.OPERATE)
def act(request: HttpRequest, pk: int, name: str) -> HttpResponseBase:
    """One button of one endpoint."""
    endpoint = get_object_or_404(Endpoint.objects.select_related("health"), pk=pk)
    if name in WISHES:
        text, level = _change(request, endpoint, WISHES[name])
    elif name in ASKS:
        text, level = _ask(endpoint, ASKS[name])
    else:
        raise Http404
    return done(request, f"{endpoint.name}: {text}", reverse("portal:endpoint", args=[pk]), level)


def _change(request: HttpRequest, endpoint: Endpoint, wish: Wish) -> tuple[str, str]:
    if not change_state([endpoint], wish.state, request.user.pk or 0, then_disable=wish.then_disable):
        return f"already {wish.state.value}.", "info"
    return f"{wish.told}.", "success"


def _ask(endpoint: Endpoint, ask: Ask) -> tuple[str, str]:
    """Ask the prober, wait, and tell what it found."""
    if endpoint.state == OperatorState.DISABLED.value:
        return "disabled, so not probed. Resume it first.", "warning"
    asked = ask_prober([endpoint.pk], (ask,))
    if ask is Ask.DISCOVERY and health_of(endpoint).status not in ROUTABLE:
        return "not well; its models are read once it is.", "warning"
    if not prober_state().alive:
        return NO_PROBER, "error"
    if not wait_for_prober([endpoint.pk], asked, ask, PROBE_WAIT_SECONDS):
        return f"no result after {PROBE_WAIT_SECONDS:g} s; it will show when it comes.", "warning"
    return _tell(Endpoint.objects.select_related("health").get(pk=endpoint.pk), ask)


def _tell(endpoint: Endpoint, ask: Ask) -> tuple[str, str]:
    health = health_of(endpoint)
    if ask is Ask.DISCOVERY:
        count = endpoint.discovered_models.count()
        if health.models_error:
            return health.models_error, "warning"
        return f"{count} model{'' if count == 1 else 's'}.", "success"
    text = health.get_status_display()
    if health.status not in ROUTABLE:
        return f"{text}. {health.last_error}", "warning"
    return f"{text}, answered in {health.latency_ms or 0:.0f} ms.", "success"
