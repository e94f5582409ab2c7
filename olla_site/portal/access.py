"""Who may do what in the portal: four rights, one way to ask for them.

    @page()                    a page to look at: needs Right.VIEW, answers GET and HEAD
    @page(Right.TRY)           the playground
    @action(Right.OPERATE)     a POST that changes something

Rights are Django permissions (`portal.view` and so on) given to groups; `groups.py` has those there are from the
start. Without an account somebody may look (and only look) from inside OLLA_PORTAL_ANONYMOUS_NETWORKS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from endpoints.conf import conf
from proxy.client_identity import Headers, identify_client, is_within, networks_of

View = Callable[..., Any]


class Right(StrEnum):
    """What somebody may do here; the value is the permission's codename in the application `portal`."""

    VIEW = "view"
    OPERATE = "operate"
    TRY = "try"
    ADMINISTER = "administer"


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of one reader, for views and templates (`{% if rights.operate %}`)."""

    held: frozenset[Right] = frozenset()
    signed_in: bool = False

    def __contains__(self, right: Right) -> bool:
        return right in self.held

    @property
    def view(self) -> bool:
        """May look at everything the portal shows."""
        return Right.VIEW in self.held

    @property
    def operate(self) -> bool:
        """May drain, resume, disable, probe and discover."""
        return Right.OPERATE in self.held

    @property
    def try_models(self) -> bool:
        """May send requests from the playground."""
        return Right.TRY in self.held

    @property
    def administer(self) -> bool:
        """May add endpoints and change rules."""
        return Right.ADMINISTER in self.held


_READER = Rights(frozenset({Right.VIEW}))
_NOBODY = Rights()


def rights_of(user: Any, address: str = "", headers: Headers = ()) -> Rights:
    """The rights of a user, or of somebody without an account at `address`. Reads the database once a user.

    `headers` are as in an ASGI scope: names in lower case.
    """
    if user is not None and user.is_authenticated:
        return Rights(frozenset(right for right in Right if user.has_perm(f"portal.{right}")), signed_in=True)
    return _READER if _may_read_anonymously(address, headers) else _NOBODY


def request_rights(request: HttpRequest) -> Rights:
    """The rights of whoever sent a request, found once for each."""
    known: Rights | None = getattr(request, "portal_rights", None)
    if known is None:
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in request.headers.items()
        ]
        known = rights_of(getattr(request, "user", None), str(request.META.get("REMOTE_ADDR", "")), headers)
        request.portal_rights = known  # type: ignore[attr-defined]
    return known


def page(right: Right = Right.VIEW, methods: tuple[str, ...] = ("GET", "HEAD")) -> Callable[[View], View]:
    """A view only for those who have `right`: others sign in first, or are told that they may not.

    Works for sync and async views. The answer is kept by no cache.
    """

    def decorate(view: View) -> View:
        guarded = _guard_async(view, right) if iscoroutinefunction(view) else _guard(view, right)
        return never_cache(require_http_methods(list(methods))(guarded))

    return decorate


def action(right: Right) -> Callable[[View], View]:
    """A view that changes something: POST only. Django's CSRF middleware has checked it before."""
    return page(right, ("POST",))


def _guard(view: View, right: Right) -> View:
    @wraps(view)
    def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        refused = _refuse(request, right)
        answer: HttpResponseBase = view(request, *args, **kwargs) if refused is None else refused
        return answer

    return inner


def _guard_async(view: View, right: Right) -> View:
    @wraps(view)
    async def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        refused = await sync_to_async(_refuse)(request, right)
        answer: HttpResponseBase = await view(request, *args, **kwargs) if refused is None else refused
        return answer

    return inner


def _refuse(request: HttpRequest, right: Right) -> HttpResponseBase | None:
    """The answer to somebody without the right; None for those who have it. Raises PermissionDenied."""
    rights = request_rights(request)
    if right in rights:
        return None
    if rights.signed_in:
        raise PermissionDenied
    if request.headers.get("HX-Request") or request.method not in {"GET", "HEAD"}:
        # A fragment or a fetch cannot show a login page; the page's script sends the browser there.
        answer = HttpResponse("Sign in first.", status=401, content_type="text/plain")
        answer.headers["HX-Refresh"] = "true"
        return answer
    return redirect_to_login(request.get_full_path())


def _may_read_anonymously(address: str, headers: Headers) -> bool:
    networks = networks_of(conf().portal_anonymous_networks)
    if not networks:
        return False
    # The scope is rewritten for pages: what proxies' headers are left in it came from none that is trusted.
    return is_within(identify_client(address, "http", headers, ()), networks)
