"""CORS for the API door: django-cors-headers, asked only when a browser asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import markcoroutinefunction
from corsheaders.conf import conf as cors_conf
from corsheaders.middleware import CorsMiddleware as StockCorsMiddleware
from django.utils.cache import patch_vary_headers

from proxy.inbound import get_header


class CorsMiddleware(StockCorsMiddleware):
    """The stock middleware, skipped for requests without Origin, which are almost all.

    A preflight is also allowed every header it asks for: SDKs in browsers send their own, and what reaches a
    backend is decided in `proxy.headers`, not here.
    """

    sync_capable = False

    def __init__(self, get_response: Callable[[Any], Awaitable[Any]]) -> None:
        super().__init__(get_response)
        self.async_mode = True
        self._allows_all = cors_conf.CORS_ALLOW_ALL_ORIGINS  # looked up for each request it would cost 1 us
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        """Answer a preflight, or add the headers to the view's answer."""
        if get_header(request.raw_headers, b"origin") is None:
            plain: Any = self.get_response(request)
            answer = await plain
            if not self._allows_all and self.is_enabled(request):
                patch_vary_headers(answer, ("origin",))
            return answer
        answer = await self.__acall__(request)
        asked = get_header(request.raw_headers, b"access-control-request-headers")
        if asked and answer.has_header("access-control-allow-headers"):
            names = {*cors_conf.CORS_ALLOW_HEADERS, *_tokens(asked)}
            answer["access-control-allow-headers"] = ", ".join(sorted(names))
        if answer.has_header("access-control-allow-origin") and request.method == "OPTIONS":
            answer["X-Olla-Request-ID"] = request.request_id
        return answer


def _tokens(value: bytes) -> list[str]:
    """Header names of a comma-separated list; anything that is not a token is left out."""
    names = [part.strip().lower() for part in value.decode("latin-1").split(",")]
    return [name for name in names if name.replace("-", "").isalnum() and name.isascii()]
