"""The "detect type" button of the endpoint form: asks the address that is typed in, stores nothing."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, JsonResponse
from django.urls import URLPattern, path

from endpoints.asking import ProbeTarget
from endpoints.detection import detect_type, seconds_for
from endpoints.models import Endpoint
from endpoints.profiles import AUTO, PROFILES
from endpoints.recording import build_target
from endpoints.transport import Transport

LONGEST_WAIT = 10.0  # seconds; check timeouts may be longer
# What decides where is asked and with which credentials; errors elsewhere in the form do not matter yet.
_DECISIVE = (
    "url", "auth_type", "auth_username", "auth_secret", "auth_header", "extra_headers", "verify_tls", "ca_file",
    "check_timeout", "health_check_url", "model_url", "__all__",
)  # fmt: skip


class DetectDesk:
    """Adds the view to the endpoint admin."""

    def get_urls(self) -> list[URLPattern]:
        """The admin's addresses and `detect/`, for a new endpoint and for a stored one."""
        site: Any = getattr(self, "admin_site")  # noqa: B009 - the admin this is mixed into has it
        view = site.admin_view(self.detect)
        own = [
            path("detect/", view, name="endpoints_endpoint_detect"),
            path("<path:object_id>/detect/", view, name="endpoints_endpoint_detect_stored"),
        ]
        inherited: list[URLPattern] = super().get_urls()  # type: ignore[misc]
        return [*own, *inherited]

    def detect(self: Any, request: HttpRequest, object_id: str | None = None) -> JsonResponse:
        """What kind of server answers where the posted form points: `{"kind", "title"}` or `{"error"}`."""
        stored = self.get_object(request, object_id) if object_id else None
        allowed = self.has_change_permission(request, stored) if stored else self.has_add_permission(request)
        if request.method != "POST" or not allowed or (object_id and stored is None):
            raise PermissionDenied
        form = self.get_form(request, stored, change=stored is not None)(request.POST, instance=stored)
        problem = _read_problem(form)
        if problem:
            return JsonResponse({"error": problem}, status=400)
        target = target_of(form.instance)
        if target.problem:
            return JsonResponse({"error": target.problem}, status=400)
        wait = min(seconds_for(target), LONGEST_WAIT)
        kind = asyncio.run(_ask(target, wait))
        if not kind:
            message = f"No server of a known type answered there within {wait:g} s."
            return JsonResponse({"error": message}, status=404)
        return JsonResponse({"kind": kind, "title": PROFILES[kind].title})


def target_of(endpoint: Endpoint) -> ProbeTarget:
    """What to ask of an endpoint as the form has it, without a belief about its type."""
    return replace(build_target(endpoint, os.environ), backend_type=AUTO)


def _read_problem(form: Any) -> str:
    errors = form.errors  # this validates, and puts the values on the instance
    return next((errors[name][0] for name in _DECISIVE if name in errors), "")


async def _ask(target: ProbeTarget, seconds: float) -> str:
    door = Transport()
    try:
        return await detect_type(target, door, timeout=seconds)
    finally:
        await door.aclose()
