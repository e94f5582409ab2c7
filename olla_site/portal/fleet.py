"""The fleet page, its rows by themselves, and its picture as JSON for pages that poll."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from olla_site.portal.access import page
from olla_site.portal.feed import feed
from olla_site.portal.picture import take_picture

TILES = (
    # Field of the summary, label, unit, series of its sparkline, what stands below it.
    ("requests", "Requests", "/s", "requests", ""),
    ("errors", "Errors", "/s", "errors", "error_percent"),
    ("in_flight", "In flight", "", "in_flight", "waiting"),
    ("tokens", "Tokens out", "/s", "tokens", ""),
    ("first_byte", "First byte, median", "ms", "first_byte", ""),
    ("p95", "Answer time, p95", "ms", "latency", ""),
)


@page()
def home(request: HttpRequest) -> HttpResponse:
    """The fleet: what there is and how it is."""
    return render(request, "portal/fleet.html", {"picture": take_picture(), "tiles": TILES})


@page()
def rows(request: HttpRequest) -> HttpResponse:
    """The table's rows, for a page whose rows came, went or were renamed."""
    return render(request, "portal/parts/fleet_rows.html", {"picture": take_picture()})


@page()
def live(request: HttpRequest) -> HttpResponse:
    """The full message of the feed, for pages that cannot keep a WebSocket open."""
    return HttpResponse(feed.full_message(), content_type="application/json")
