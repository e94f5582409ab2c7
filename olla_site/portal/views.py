"""The portal's pages. Sync on purpose: they read the database and django-ratelimit knows no async views."""

from __future__ import annotations

import json
import shlex
import time
from datetime import UTC, datetime

from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_safe

from olla_site.portal.fleet import load_fleet
from olla_site.portal.login_limits import limit_logins

RETRY_SECONDS = 60


@require_safe
@never_cache
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The fleet: what there is, how it is, and how to use it."""
    fleet = load_fleet(time.time())
    base = request.build_absolute_uri("/").rstrip("/")
    context = {
        "here": "fleet",
        "fleet": fleet,
        "base": base,
        "curl": build_curl(base, fleet.example_model or "MODEL"),
        "picture_from": datetime.fromtimestamp(fleet.picture_from, UTC) if fleet.picture_from else None,
        "may_add": request.user.has_perm("endpoints.add_endpoint") and request.user.is_staff,
        "may_change": request.user.has_perm("endpoints.change_endpoint") and request.user.is_staff,
    }
    return render(request, "portal/home.html", context)


def build_curl(base: str, model: str) -> str:
    """A request to paste into a shell; names with quotes in them stay one argument."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]}
    return (
        f"curl -N {base}/olla/openai/v1/chat/completions \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


class _Login(LoginView):
    template_name = "portal/login.html"


_sign_in = _Login.as_view()


@sensitive_post_parameters("password")
@never_cache
@csrf_protect
@limit_logins
def login(request: HttpRequest) -> HttpResponseBase:
    """One login page for portal and admin."""
    if getattr(request, "limited", False):
        response = render(request, "portal/too_many_logins.html", {"seconds": RETRY_SECONDS}, status=429)
        response.headers["Retry-After"] = str(RETRY_SECONDS)
        return response
    return _sign_in(request)
