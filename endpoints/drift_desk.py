"""The page of names that are not the same model everywhere, beside the list of discovered models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from endpoints import loading
from endpoints.drift import build_drift


class DriftDesk:
    """Adds the page to the admin of discovered models."""

    def get_urls(self) -> list[URLPattern]:
        """The admin's addresses and `drift/`."""
        site: Any = getattr(self, "admin_site")  # noqa: B009 - the admin this is mixed into has it
        inherited: list[URLPattern] = super().get_urls()  # type: ignore[misc]
        return [path("drift/", site.admin_view(self.drift), name="endpoints_discoveredmodel_drift"), *inherited]

    def drift(self: Any, request: HttpRequest) -> HttpResponse:
        """Every such name as this process's snapshot has it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        rows = [
            (row.name, [(each, _moment(each.modified_at)) for each in row.versions])
            for row in build_drift(loading.current())
        ]
        context = {**self.admin_site.each_context(request), "title": "Drift", "rows": rows}
        return TemplateResponse(request, "admin/endpoints/discoveredmodel/drift.html", context)


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
