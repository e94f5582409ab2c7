"""OllaServer: Daphne with limits, flow control, honest aborts and graceful drain.

    server.py         the server: start, listen, one sweep a second, the connections it knows
    http_protocol.py  one client connection: bytes in, requests out, refusals, closing
    request_head.py   httptools' callbacks -> a checked request head and its body
    exchange.py       one request and its answer: the ASGI conversation
    response_head.py  the bytes of an answer's head and how its body is framed     (pure)
    limits.py         the refusals, and the process's budget for request bodies     (pure)
    websocket.py      upgrades, handed to Daphne's WebSocket protocol
    lifespan.py       the application's startup and shutdown
    drain.py          signals; the orderly end
    prober_child.py   the prober beside the server
    access_log.py     one JSON line per request, without secrets

Nothing heavy is imported here: importing Daphne installs Twisted's reactor.
"""

from olla_site.server.aborting import AbortResponse

__all__ = ["AbortResponse"]
