"""Signing in. Sync on purpose: django-ratelimit knows no async views."""

from __future__ import annotations

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from olla_site.portal.login_limits import limit_logins

RETRY_SECONDS = 60


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
