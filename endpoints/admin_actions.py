"""Buttons over selected endpoints: probe now, discover models now, drain, resume, disable."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from endpoints.facts import health_of
from endpoints.health import ROUTABLE, OperatorState
from endpoints.models import Endpoint, EndpointHealth
from endpoints.operations import (
    NAMED,
    PROBE_WAIT_SECONDS,
    Ask,
    ask_prober,
    change_state,
    join_names,
    prober_state,
    wait_for_prober,
)


class EndpointActions:
    """The actions of the endpoint list, mixed into its admin."""

    wait_seconds = PROBE_WAIT_SECONDS

    @admin.action(description="Probe now", permissions=["change"])
    def probe_now(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._ask(request, list(queryset), Ask.PROBE)

    @admin.action(description="Discover models now", permissions=["change"])
    def discover_now(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._ask(request, list(queryset), Ask.DISCOVERY)

    @admin.action(description="Drain: no new requests, open ones finish", permissions=["change"])
    def drain(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._set_state(request, queryset, OperatorState.DRAINING)

    @admin.action(description="Drain, then disable once its last request has ended", permissions=["change"])
    def drain_then_disable(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._set_state(request, queryset, OperatorState.DRAINING, then_disable=True)

    @admin.action(description="Maintenance: no new requests until resumed", permissions=["change"])
    def maintain(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._set_state(request, queryset, OperatorState.MAINTENANCE)

    @admin.action(description="Resume: take requests again", permissions=["change"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._set_state(request, queryset, OperatorState.ACTIVE)

    @admin.action(description="Disable: no requests, no probes", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._set_state(request, queryset, OperatorState.DISABLED)

    def _set_state(
        self,
        request: HttpRequest,
        queryset: QuerySet[Endpoint],
        state: OperatorState,
        *,
        then_disable: bool = False,
    ) -> None:
        changed = change_state(queryset, state, request.user.pk or 0, then_disable=then_disable)
        if changed:
            messages.success(request, f"{join_names(changed)}: now {state.value}.")
        else:
            messages.info(request, f"Nothing to do: already {state.value}.")

    def _ask(self, request: HttpRequest, chosen: list[Endpoint], ask: Ask) -> None:
        """Ask the prober and tell what came of it."""
        off = [each for each in chosen if each.state == OperatorState.DISABLED.value]
        if off:
            messages.warning(request, f"{join_names(off)}: disabled, so not probed. Resume first.")
        wanted = {each.pk: each for each in chosen if each.state != OperatorState.DISABLED.value}
        asked = ask_prober(wanted, (ask,))
        if ask is Ask.DISCOVERY:
            unwell = [each for each in wanted.values() if health_of(each).status not in ROUTABLE]
            if unwell:
                messages.warning(request, f"{join_names(unwell)}: not well; the models are read once it is.")
            wanted = {pk: each for pk, each in wanted.items() if health_of(each).status in ROUTABLE}
        if not wanted:
            return
        if not prober_state().alive:
            messages.error(
                request,
                "No prober is running, so nothing was probed. It starts with the server; or run "
                "manage.py probe_endpoints. The request is noted and done as soon as one runs.",
            )
            return
        done = wait_for_prober(wanted, asked, ask, self.wait_seconds)
        waiting = [endpoint for pk, endpoint in wanted.items() if pk not in done]
        _tell_results(request, done, ask)
        if waiting:
            messages.warning(
                request,
                f"{join_names(waiting)}: no result after {self.wait_seconds:g} s; it will show in the list.",
            )


def _tell_results(request: HttpRequest, done: set[int], ask: Ask) -> None:
    rows = list(EndpointHealth.objects.filter(pk__in=done).select_related("endpoint").order_by("endpoint__name"))
    for row in rows[: NAMED * 2]:
        if ask is Ask.PROBE:
            good, text = row.status in ROUTABLE, row.get_status_display()
            text = f"{text}, {row.latency_ms:.0f} ms" if good and row.latency_ms is not None else text
            detail = row.last_error
        else:
            count = row.endpoint.discovered_models.count()
            good, text, detail = (
                not row.models_error,
                f"{count} model{'' if count == 1 else 's'}",
                row.models_error,
            )
        level = messages.SUCCESS if good else messages.WARNING
        messages.add_message(request, level, f"{row.endpoint.name}: {text}{f'. {detail}' if detail else '.'}")
    if len(rows) > NAMED * 2:
        messages.info(request, f"And {len(rows) - NAMED * 2} more, see the list.")
