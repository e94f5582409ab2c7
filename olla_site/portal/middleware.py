"""Headers of every page (nothing is loaded from elsewhere, no inline script runs), and its compression."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def content_security_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Set the policy unless the view has set one."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return middleware


class GZipWholePages(GZipMiddleware):
    """Compresses pages, but no stream, such as an export.

    Django makes a gzip member of every piece of an asynchronous stream (RFC 1952 allows many), and many clients
    read the first alone, browsers among them: a download would end after one piece and look complete.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """The answer, compressed when it is whole."""
        return response if response.streaming else super().process_response(request, response)
