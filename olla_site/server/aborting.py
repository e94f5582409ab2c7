"""AbortResponse: how an application says that an answer must not look complete."""

from __future__ import annotations


class AbortResponse(Exception):  # noqa: N818 - it is an order, not an error
    """Raised out of the ASGI application to cut the connection.

    After the answer has started the server resets the connection at once, so that the client sees an
    incomplete body and never a clean end; before that the client gets our JSON 500.
    """
