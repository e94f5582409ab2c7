"""WebSocket upgrades, handed to Daphne's WebSocket protocol with answers that are whole HTTP."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.protocols.policies import ProtocolWrapper

from olla_site.server.request_head import RequestHead
from proxy.errors import ErrorCode, OllaError, build_error_body
from proxy.request_id import choose_request_id

if TYPE_CHECKING:
    from olla_site.server.http_protocol import HTTPProtocol

logger = logging.getLogger(__name__)

_CODES = {400: ErrorCode.INVALID_REQUEST, 403: ErrorCode.FORBIDDEN_PATH, 426: ErrorCode.INVALID_REQUEST}


class OllaWebSocketProtocol(WebSocketProtocol):  # type: ignore[misc]
    """Daphne's protocol, whose refused handshakes carry our JSON error."""

    _raw_query_string = b""
    request_id = ""

    def sendHttpErrorResponse(  # noqa: N802 - autobahn's name
        self,
        code: int,
        reason: str,
        responseHeaders: Any = None,  # noqa: N803 - autobahn's name
    ) -> None:
        """Refuse the handshake: autobahn's own answer has neither length nor body."""
        status = int(code)
        error = OllaError(_CODES.get(status, ErrorCode.INTERNAL_ERROR), str(reason), status=status)
        body = build_error_body(error, self.request_id)
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        lines = [f"HTTP/1.1 {status} {phrase}", "content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in responseHeaders or ()]
        lines += [f"x-olla-request-id: {self.request_id}", "connection: close", "", ""]
        self.sendData("\r\n".join(lines).encode("latin-1") + body)


class OllaWebSocketFactory(WebSocketFactory):  # type: ignore[misc]
    """Builds `OllaWebSocketProtocol`."""

    protocol = OllaWebSocketProtocol


def hand_to_websocket(connection: HTTPProtocol, head: RequestHead, received: bytes) -> None:
    """Give the connection to a WebSocket protocol, which reads `received` (head and what follows) again.

    The way Daphne's own HTTP protocol does it: the transport gets another protocol, without being told.
    """
    transport = connection.transport
    protocol = connection.server.ws_factory.buildProtocol(transport.getPeer())
    protocol._raw_query_string = head.query
    protocol.request_id = choose_request_id(head.watched.get(b"x-request-id"))
    transport.unregisterProducer()
    connection.leave()
    if isinstance(transport, ProtocolWrapper):  # TLS wraps the protocol
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    protocol.makeConnection(transport)
    protocol.dataReceived(received)
