"""The fleet page."""

from __future__ import annotations

import time

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from olla_site.portal.access import page
from olla_site.portal.fleet_rows import load_fleet


@page()
def home(request: HttpRequest) -> HttpResponse:
    """The fleet: what there is and how it is."""
    return render(request, "portal/fleet.html", {"fleet": load_fleet(time.time())})
