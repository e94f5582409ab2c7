"""Adding an endpoint: a short form that can be tried before it is saved.

Trying asks the address from this process, with the form's own credentials and the same guards as the prober, and
stores nothing.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib import messages
from django.contrib.admin.models import ADDITION, LogEntry
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django_ratelimit.core import is_ratelimited

from endpoints.detection import detect_type, seconds_for
from endpoints.forms import EndpointForm
from endpoints.health import Outcome
from endpoints.models import Endpoint
from endpoints.operations import Ask, ask_prober
from endpoints.probing import DiscoveryError, discover_models, probe_endpoint
from endpoints.profiles import AUTO, PROFILES
from endpoints.recording import build_target
from endpoints.transport import Transport
from olla_site.portal.access import Right, action, page

TRIES = "30/m"  # for each account
TRY_SECONDS = 8.0
MODELS_NAMED = 12


class AddEndpointForm(EndpointForm):
    """What is needed to begin; the admin has every field."""

    class Meta(EndpointForm.Meta):
        # The parent's is a tuple of another length.
        fields = (  # type: ignore[assignment]
            "name", "url", "backend_type", "priority", "tags", "auth_type", "auth_header", "auth_username",
            "auth_secret", "extra_headers", "verify_tls", "ca_file",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for each in self.fields.values():
            widget = each.widget
            if getattr(widget, "input_type", "") != "checkbox":
                widget.attrs["class"] = "input"


@dataclass(slots=True)
class Trial:
    """What an address answered; `good` when it can be used as it is filled in."""

    good: bool
    title: str
    details: list[str] = field(default_factory=list)
    kind: str = ""  # detected
    kind_title: str = ""
    models: list[str] = field(default_factory=list)
    more: int = 0


@page(Right.ADMINISTER, ("GET", "HEAD", "POST"))
def add_endpoint(request: HttpRequest) -> HttpResponseBase:
    """The form, and saving it."""
    form = AddEndpointForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = _save(request, form)
        for text in form.warnings:
            messages.warning(request, text)
        messages.success(request, f"{made.name} is added. It is being probed, and its models read.")
        return redirect(f"{reverse('portal:home')}#endpoint-{made.pk}")
    return render(request, "portal/add_endpoint.html", {"form": form}, status=422 if form.errors else 200)


@action(Right.ADMINISTER)
def try_endpoint(request: HttpRequest) -> HttpResponse:
    """Ask the address of a form that is not saved yet; a fragment tells what came of it."""
    if is_ratelimited(
        request, group="portal-try", key=lambda _, each: str(each.user.pk), rate=TRIES, increment=True
    ):
        trial = Trial(good=False, title="Too many tries", details=["Wait a minute, then try again."])
        return render(request, "portal/parts/trial.html", {"trial": trial}, status=429)
    form = AddEndpointForm(request.POST)
    if not form.is_valid():
        texts = [f"{form.fields[name].label if name in form.fields else ''}: {text}".lstrip(": ")
                 for name, errors in form.errors.items() for text in errors]  # fmt: skip
        return render(request, "portal/parts/trial.html", {"trial": Trial(False, "Not asked yet", texts)})
    trial = async_to_sync(_ask)(form.save(commit=False))
    trial.details += form.warnings
    return render(request, "portal/parts/trial.html", {"trial": trial})


def _save(request: HttpRequest, form: AddEndpointForm) -> Endpoint:
    with transaction.atomic():
        made: Endpoint = form.save()
        LogEntry.objects.log_actions(request.user.pk or 0, [made], ADDITION, change_message="Added in the portal.")
    ask_prober([made.pk], (Ask.PROBE, Ask.DISCOVERY))
    return made


async def _ask(endpoint: Endpoint) -> Trial:
    """Probe, find the kind out, read the models. A door of its own: it belongs to this event loop."""
    door = Transport()
    try:
        target = build_target(endpoint, os.environ)
        result = await probe_endpoint(target, door, time.time(), detect=True)
        if result.outcome is not Outcome.ANSWERED:
            return Trial(False, "It could not be reached", [result.error])
        kind = result.detected_type
        if not kind and endpoint.backend_type == AUTO:
            kind = await detect_type(target, door, timeout=seconds_for(target))
        trial = _judge(result.status_code or 0, result.latency_ms or 0.0)
        if kind in PROFILES:
            trial.kind, trial.kind_title = kind, PROFILES[kind].title
        await _read_models(build_target(endpoint, os.environ, kind), door, trial)
    finally:
        await door.aclose()
    return trial


def _judge(status: int, latency: float) -> Trial:
    if status in {401, 403}:
        return Trial(False, "It refuses the credentials", [f"It answered HTTP {status}."])
    good = status < 500 and status != 404
    return Trial(good, f"It answered in {latency:.0f} ms", [] if good else [f"With HTTP {status}."])


async def _read_models(target: Any, door: Transport, trial: Trial) -> None:
    try:
        found = await discover_models(target, door, timeout=TRY_SECONDS)
    except DiscoveryError as error:
        trial.good = False
        trial.details.append(str(error))
        return
    names = sorted(model.name for model in found.models)
    trial.models, trial.more = names[:MODELS_NAMED], max(0, len(names) - MODELS_NAMED)
    if not names:
        trial.details.append("It lists no models.")
