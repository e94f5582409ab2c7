"""Buttons over several chosen endpoints: states at once, probes and readings of models with their progress."""

from __future__ import annotations

import time
from collections.abc import Sequence

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import redirect, render

from endpoints.facts import health_of
from endpoints.health import ROUTABLE, OperatorState
from endpoints.models import Endpoint
from endpoints.operations import Ask, ask_prober, change_state, join_names, prober_state
from olla_site.portal.access import Right, action, page
from olla_site.portal.answers import done, is_htmx
from olla_site.portal.asked import read_key
from olla_site.portal.endpoint_actions import ASKS, NO_PROBER, WISHES, Wish
from olla_site.portal.fleet_work import Work, cancel, desk, look

MOST = 1000  # endpoints at once
HOME = "portal:home"


@action(Right.OPERATE)
def act(request: HttpRequest, name: str) -> HttpResponseBase:
    """One button over the endpoints named in `endpoint`."""
    if name not in WISHES and name not in ASKS:
        raise Http404
    chosen = read_chosen(request.POST)
    if not chosen:
        return done(request, "Choose endpoints first.", HOME, "warning")
    if name in ASKS:
        return _ask(request, chosen, ASKS[name])
    text, level = change(request.user.pk or 0, chosen, WISHES[name])
    return done(request, text, HOME, level)


@page(Right.OPERATE)
def show(request: HttpRequest, key: str) -> HttpResponse:
    """How far a work is; htmx asks for it until it is over."""
    work = desk.find(key, request.user.pk or 0)
    if work is None:  # told in the place of the progress, so that htmx asks no more
        if not is_htmx(request):
            raise Http404
        return HttpResponse('<p class="notice">The server was restarted; the list shows what came of it.</p>')
    look(work, time.monotonic())
    return _draw(request, work)


@action(Right.OPERATE)
def stop(request: HttpRequest, key: str) -> HttpResponseBase:
    """Take back what is not done yet."""
    work = desk.find(key, request.user.pk or 0)
    if work is None:
        raise Http404
    cancel(work, time.monotonic())
    return _draw(request, work) if is_htmx(request) else redirect("portal:fleet_work", key)


def read_chosen(values: QueryDict) -> list[Endpoint]:
    """The endpoints a form names, by name; what is no endpoint is left out."""
    keys = map(read_key, values.getlist("endpoint")[:MOST])
    ids = {key for key in keys if key is not None}
    return list(Endpoint.objects.filter(pk__in=ids).select_related("health").order_by("name"))


def change(user_pk: int, chosen: Sequence[Endpoint], wish: Wish) -> tuple[str, str]:
    """Give all of them a state; the answer in words, and its level."""
    changed = change_state(chosen, wish.state, user_pk, then_disable=wish.then_disable)
    if not changed:
        return f"Nothing to do: already {wish.state.value}.", "info"
    same = len(chosen) - len(changed)
    already = f" {same} {'was' if same == 1 else 'were'} already." if same else ""
    return f"{join_names(changed)}: {wish.told}.{already}", "success"


def _ask(request: HttpRequest, chosen: list[Endpoint], ask: Ask) -> HttpResponseBase:
    notes = []
    off = [each for each in chosen if each.state == OperatorState.DISABLED.value]
    if off:
        notes.append(f"Left out, for disabled endpoints are not probed: {join_names(off)}.")
    wanted = [each for each in chosen if each.state != OperatorState.DISABLED.value]
    if ask is Ask.DISCOVERY:
        unwell = [each for each in wanted if health_of(each).status not in ROUTABLE]
        if unwell:
            notes.append(f"Not well, so their models are read later: {join_names(unwell)}.")
            ask_prober([each.pk for each in unwell], (ask,))
        wanted = [each for each in wanted if health_of(each).status in ROUTABLE]
    if not wanted:
        return done(request, " ".join(notes), HOME, "warning")
    if not prober_state().alive:
        ask_prober([each.pk for each in wanted], (ask,))
        return done(request, NO_PROBER, HOME, "error")
    work = desk.start(request.user.pk or 0, ask, wanted, tuple(notes))
    return _draw(request, work) if is_htmx(request) else redirect("portal:fleet_work", work.key)


def _draw(request: HttpRequest, work: Work) -> HttpResponse:
    name = "portal/parts/work.html" if is_htmx(request) else "portal/work.html"
    return render(request, name, {"work": work, "is_probe": work.ask is Ask.PROBE})
