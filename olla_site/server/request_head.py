"""httptools' callbacks -> a checked request head and its body.

httptools (llhttp in its strict default mode) refuses what is not HTTP; here stand the rules that keep a request
from being read in two ways (RFC 9112, sections 3, 6 and 11.2). `RequestParser` sees one message at a time and
always a whole head: the connection cuts its input accordingly, so that the size of a head is exact and pipelined
requests wait as bytes.
"""

from __future__ import annotations

from urllib.parse import unquote

import msgspec
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from olla_site.server.limits import (
    MAX_HEADERS,
    BodyBudget,
    bad_request,
    body_too_large,
    may_chunk,
    overloaded,
    too_many_headers,
)
from proxy.errors import OllaError

_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding"})
_WATCHED = _SINGLE | {b"expect", b"upgrade", b"x-request-id"}
_HTTP11 = b"HTTP/1.1"


class RequestHead(msgspec.Struct):
    """A request as its head describes it; names of headers in lower case, in the order of the wire."""

    method: str
    raw_path: bytes
    query: bytes
    http_version: str
    headers: list[tuple[bytes, bytes]]
    watched: dict[bytes, bytes]
    keep_alive: bool
    length: int
    chunked: bool
    websocket: bool

    @property
    def path(self) -> str:
        """The path percent-decoded, as ASGI wants it."""
        text = self.raw_path.decode("ascii")
        return unquote(text) if "%" in text else text

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.chunked or self.length > 0


class RequestParser:
    """The parser of one connection: `parse_head`, then `feed` until `complete`, then `take_body`."""

    __slots__ = ("_body", "_budget", "_keep_alive", "_max_body", "_parser", "_received", "complete", "size")

    def __init__(self, budget: BodyBudget, max_body: int) -> None:
        self._budget = budget
        self._max_body = max_body
        self._parser = HttpRequestParser(self)
        self._body: list[bytes] = []
        self._received = 0
        self._keep_alive = False
        self.size = 0
        self.complete = False

    # What the connection calls

    def parse_head(self, raw: bytes) -> RequestHead:
        """The checked head of the request that starts with `raw`, which ends with its empty line.

        llhttp judges the syntax and keeps the framing; the lines it has passed are split here, as a callback
        per header costs half as much again. Raises OllaError when the request must not be passed on.
        """
        self._received = 0
        self.complete = upgrade = False
        try:
            self._parser.feed_data(raw)
        except HttpParserUpgrade:
            upgrade = True
        except HttpParserError as error:
            raise _translated(error) from None
        head = build_head(raw, keep_alive=self._keep_alive, upgrade=upgrade)
        if upgrade and not head.websocket:
            # An offer we do not take (h2c, from Java's client with every first request) is ignored (RFC 9110,
            # 7.8). llhttp would take the body for the new protocol's bytes: parse again without the offer.
            self._parser = HttpRequestParser(self)
            return self.parse_head(_without_upgrade(raw))
        return head

    def feed(self, data: bytes) -> None:
        """Take bytes of the body. Raises OllaError: bad framing, too large, or no memory left for it."""
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            raise _translated(error) from None
        if not may_chunk(self._received, self.size):
            raise bad_request("The chunked body has more framing than content.")

    def take_body(self) -> bytes:
        """The whole body, handed over; the budget stays charged until `release`."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        return body

    def release(self) -> None:
        """Give the body's bytes back to the budget; repeating does no harm."""
        if self.size:
            self._budget.used -= self.size
            self.size = 0
            self._body = []

    # A head of which only a part has come

    @staticmethod
    def build_checker() -> HttpRequestParser:
        """A parser without callbacks, which keeps nothing and only judges syntax."""
        return HttpRequestParser(object())

    @staticmethod
    def check(checker: HttpRequestParser, fresh: bytes) -> None:
        """Raise OllaError when the head begun can no longer become a request."""
        try:
            checker.feed_data(fresh)
        except HttpParserError as error:
            raise _translated(error) from None

    # What httptools calls

    def on_body(self, data: bytes) -> None:
        """Some bytes of the body."""
        more = len(data)
        size = self.size + more
        if 0 < self._max_body < size:
            raise body_too_large(self._max_body)
        if not self._budget.may_hold(size, more):
            raise overloaded()
        self._budget.used += more
        self.size = size
        self._body.append(data)

    def on_headers_complete(self) -> None:
        """The empty line after the head; once a message is complete llhttp forgets what it said."""
        self._keep_alive = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """The last byte of the request."""
        self.complete = True


# Header lines as sent -> name in lower case, value. Clients repeat themselves: most lines of a request stood in
# the one before, and then the very same objects stand for them.
_lines: dict[bytes, tuple[bytes, bytes]] = {}
_MOST_LINES = 1024
_LONGEST_LINE = 512


def _read_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Name and value, or None for a header that is dropped."""
    name, _, value = line.partition(b":")
    if b"_" in name:
        return None  # WSGI-style names cannot tell X_Forwarded_For from X-Forwarded-For: dropped, as nginx does
    pair = (name.lower(), value.strip(b" \t"))
    if len(line) <= _LONGEST_LINE:
        if len(_lines) >= _MOST_LINES:
            _lines.clear()
        _lines[line] = pair
    return pair


def build_head(raw: bytes, *, keep_alive: bool, upgrade: bool) -> RequestHead:
    """The record of a head llhttp has accepted. Raises OllaError for what could be read in two ways."""
    lines = raw.split(b"\r\n")
    if len(lines) - 3 > MAX_HEADERS:  # the request line, and two empty strings after the last line ends
        raise too_many_headers()
    first = lines[0].split(b" ")
    if len(first) != 3:
        raise bad_request("The request line must be a method, a path and HTTP/1.1.")
    headers: list[tuple[bytes, bytes]] = []
    watched: dict[bytes, bytes] = {}
    for line in lines[1:-2]:
        pair = _lines.get(line)
        if pair is None:
            pair = _read_line(line)
            if pair is None:
                continue
        headers.append(pair)
        name = pair[0]
        if name in _WATCHED:
            if name in watched and name in _SINGLE:
                raise bad_request(f"The {name.decode()} header appears twice.")
            watched.setdefault(name, pair[1])
    method, target, version = first
    _check_framing(version, watched)
    if method == b"CONNECT":
        raise bad_request("CONNECT is not supported.")
    raw_path, query = _split_target(target, watched.get(b"host"))
    return RequestHead(
        method=method.decode("ascii"),
        raw_path=raw_path,
        query=query,
        http_version="1.1" if version == _HTTP11 else "1.0",
        headers=headers,
        watched=watched,
        keep_alive=keep_alive,
        length=int(watched.get(b"content-length", b"0")),
        chunked=b"transfer-encoding" in watched,
        websocket=upgrade and _asks_for_websocket(method, version, watched),
    )


def _check_framing(version: bytes, watched: dict[bytes, bytes]) -> None:
    if version not in {_HTTP11, b"HTTP/1.0"}:
        raise bad_request("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if version == _HTTP11 and b"host" not in watched:
        raise bad_request("The Host header is missing.")
    coding = watched.get(b"transfer-encoding")
    if coding is None:
        return
    if coding.lower() != b"chunked" or version != _HTTP11:
        raise bad_request("Only Transfer-Encoding: chunked is understood, and only in HTTP/1.1.")
    if b"content-length" in watched:
        raise bad_request("Content-Length and Transfer-Encoding exclude each other.")


def _translated(error: HttpParserError) -> OllaError:
    """Our own error that a callback raised, or a 400 with the parser's reason."""
    cause = error.__context__
    if isinstance(error, HttpParserCallbackError) and isinstance(cause, OllaError):
        return cause
    return bad_request(f"This is not valid HTTP: {error}.")


def _split_target(target: bytes, host: bytes | None) -> tuple[bytes, bytes]:
    """Path and query of a request target, both as sent (RFC 9112, 3.2)."""
    if not target.startswith(b"/"):
        scheme, separator, rest = target.partition(b"://")
        authority, slash, path = rest.partition(b"/")
        if not separator or scheme.lower() not in {b"http", b"https"} or authority != host:
            raise bad_request("The request target must be a path.")
        target = slash + path or b"/"
    if b"#" in target:
        raise bad_request("The request target must not have a fragment.")
    raw_path, _, query = target.partition(b"?")
    return raw_path, query


def _asks_for_websocket(method: bytes, version: bytes, watched: dict[bytes, bytes]) -> bool:
    wanted = watched.get(b"upgrade", b"").lower() == b"websocket"
    bare = b"content-length" not in watched and b"transfer-encoding" not in watched
    return wanted and bare and method == b"GET" and version == _HTTP11


def _without_upgrade(raw: bytes) -> bytes:
    """`raw` without its Upgrade lines; llhttp has refused folded lines before."""
    return b"\r\n".join(line for line in raw.split(b"\r\n") if not line.lower().startswith(b"upgrade:"))
