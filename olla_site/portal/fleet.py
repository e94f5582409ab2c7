"""The fleet page, its rows by themselves, and its picture as JSON for pages that poll."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from olla_site.portal.access import page
from olla_site.portal.feed import feed
from olla_site.portal.picture import Picture, Row, take_picture

TILES = (
    # Field of the summary, label, unit, series of its sparkline, what stands below it.
    ("requests", "Requests", "/s", "requests", ""),
    ("errors", "Errors", "/s", "errors", "error_percent"),
    ("in_flight", "In flight", "", "in_flight", "waiting"),
    ("tokens", "Tokens out", "/s", "tokens", ""),
    ("first_byte", "First byte, median", "ms", "first_byte", ""),
    ("p95", "Answer time, p95", "ms", "latency", ""),
)
BULK = (
    ("probe", "Probe now"), ("discover", "Read their models"), ("drain", "Drain"),
    ("drain-then-disable", "Drain, then disable"), ("resume", "Resume"), ("disable", "Disable"),
)  # fmt: skip


@page()
def home(request: HttpRequest) -> HttpResponse:
    """The fleet: what there is and how it is."""
    picture = take_picture()
    context = {"picture": picture, "rows": plain_rows(picture), "tiles": TILES, "bulk": BULK}
    return render(request, "portal/fleet.html", context)


@page()
def rows(request: HttpRequest) -> HttpResponse:
    """The table's rows, for a page whose rows came, went or were renamed."""
    picture = take_picture()
    return render(request, "portal/parts/fleet_rows.html", {"picture": picture, "rows": plain_rows(picture)})


def plain_rows(picture: Picture) -> list[dict[str, Any]]:
    """The rows as texts by name: Django's templates find a key at once, an attribute only after a failed look for
    a key, and they localise numbers. With 200 rows of 25 values that is most of the page's time.
    """
    return [{name: _plain(getattr(row, name)) for name in Row.__struct_fields__} for row in picture.rows]


def _plain(value: Any) -> Any:
    return str(value) if type(value) is int and value else value


@page()
def live(request: HttpRequest) -> HttpResponse:
    """The full message of the feed, for pages that cannot keep a WebSocket open."""
    return HttpResponse(feed.full_message(), content_type="application/json")
