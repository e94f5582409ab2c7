"""OllaServer: Daphne with limits, flow control, honest aborts and graceful drain.

    server.py             the server: start, listen, one sweep a second, the connections it knows
    client_connection.py  the client's transport: writing, flow control, closing
    http_protocol.py      one client connection: bytes in, one request at a time out, refusals
    request_head.py       llhttp's verdict and ours -> a checked request head and its body
    exchange.py           one request and its answer: the ASGI conversation
    response_head.py      the bytes of an answer's head and how its body is framed     (pure)
    limits.py             the refusals, and the process's budget for request bodies     (pure)
    websocket.py          upgrades, handed to Daphne's WebSocket protocol
    lifespan.py           the application's startup and shutdown
    drain.py              signals; the orderly end
    prober_child.py       the prober beside the server
    access_log.py         one JSON line per request, without secrets
    running.py            what runserver and serve share

Nothing heavy is imported here: importing Daphne installs Twisted's reactor.
"""

from olla_site.server.aborting import AbortResponse

__all__ = ["AbortResponse"]
