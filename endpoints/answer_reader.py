"""Bytes of one HTTP/1.1 answer in, its head and body pieces out; knows no sockets (RFC 9112).

httptools (llhttp, strict) parses heads and chunked bodies; bodies of known length and bodies that end with the
connection are passed on as they were read.
"""

from __future__ import annotations

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from endpoints.failures import BadAnswer, CutHead, DoorError, LostMidBody
from endpoints.outgoing import Headers

MAX_HEAD = 64 * 1024
MAX_INTERIM = 16  # 1xx answers before the real one

# What an AnswerReader expects next.
HEAD: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3
DONE: Final = 4


class AnswerReader:
    """Turns the bytes of one answer into its head and body pieces; knows no sockets."""

    __slots__ = (
        "_framing", "_head_seen", "_head_size", "_interim", "_left", "_no_body", "_parser", "_stage", "_tail",
        "buffered", "complete", "excess", "headers", "http_version", "keep_alive", "pieces", "reason", "started",
        "status",
    )  # fmt: skip

    def __init__(self, method: bytes) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.http_version = ""
        self.keep_alive = False
        self.started = False  # any byte came
        self.complete = False
        self.excess = False  # bytes after the end: the connection cannot be trusted with another answer
        self.pieces: list[bytes] = []
        self.buffered = 0
        self._stage = HEAD
        self._no_body = method == b"HEAD"
        self._interim = 0
        self._left = 0
        self._framing = 0
        self._parser: HttpResponseParser | None = None
        self._begin_head()

    def feed(self, data: bytes) -> None:
        """Take what the socket gave. Raises BadAnswer; pieces read before that stay readable."""
        self.started = True
        while data and self._stage == HEAD:
            data = self._feed_head(data)
        if not data:
            return
        if self._stage == CHUNKED:
            self._feed_chunked(data)
        elif self._stage == LENGTH:
            self._feed_length(data)
        elif self._stage == UNTIL_CLOSE:
            self.on_body(data)
        else:
            self.excess = True

    def cut(self, *, clean: bool) -> DoorError | None:
        """The connection ended, `clean` by a FIN: None when that completes the answer, else the failure."""
        if self._stage == UNTIL_CLOSE and clean:
            self._finish()
            return None
        if self._stage == HEAD:
            return CutHead("The connection closed inside the head of the answer.")
        return LostMidBody("The connection closed before the body was complete.")

    def stop(self) -> None:
        """Nothing more will be fed; free the parser, which holds our bound methods: a reference cycle."""
        self._parser = None

    def take(self) -> bytes:
        """Everything buffered, joined."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        return data

    # -- callbacks of httptools

    def on_message_begin(self) -> None:
        if self.complete:
            # A second answer nobody asked for. Raising stops the parser; _feed_chunked marks the excess.
            raise BadAnswer("Bytes after the end of the answer.")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_seen:  # later ones are trailers, which are dropped
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_seen = True
        if self._parser is not None:
            self.keep_alive = self._parser.should_keep_alive()  # llhttp forgets it when the body is empty

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.buffered += len(piece)

    def on_message_complete(self) -> None:
        if self._stage == CHUNKED:
            self.complete = True

    # -- stages

    def _begin_head(self) -> None:
        self.reason = b""
        self.headers = []
        self._head_seen = False
        self._head_size = 0
        self._tail = b""
        self._parser = HttpResponseParser(self)

    def _feed_head(self, data: bytes) -> bytes:
        """Give the parser the bytes up to the end of the head and return those behind it."""
        if not self._head_size:
            # RFC 9112 2.2: be tolerant of stray line ends before a start line.
            data = data.lstrip(b"\r\n")
        seen = self._tail + data
        end = seen.find(b"\r\n\r\n")
        cut = len(data) if end < 0 else end + 4 - len(self._tail)
        self._head_size += cut
        if self._head_size > MAX_HEAD:
            raise BadAnswer(f"The head of the answer is larger than {MAX_HEAD} bytes.")
        self._parse(data[:cut])
        if end < 0:
            self._tail = seen[-3:]
            return b""
        self._end_head()
        return data[cut:]

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            raise AssertionError("no parser in this stage")
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as error:
            raise BadAnswer("The endpoint switched protocols unasked.") from error
        except HttpParserError as error:
            raise BadAnswer(f"Not a valid HTTP/1.1 answer: {error}") from error

    def _end_head(self) -> None:
        parser = self._parser
        if parser is None or not self._head_seen:
            raise BadAnswer("The head of the answer ends in its middle.")
        status = parser.get_status_code()
        if status < 200:
            self._skip_interim(status)
            return
        self.http_version = parser.get_http_version()
        if self.http_version not in {"1.1", "1.0"}:
            raise BadAnswer(f"HTTP version {self.http_version} was not asked for.")
        length, chunked = parse_framing(self.headers, self.http_version)
        self.status = status
        if self._no_body or status in {204, 304} or length == 0:
            self._finish()
        elif chunked:
            self._stage = CHUNKED
        else:
            self._parser = None
            self._left = length or 0
            self._stage = UNTIL_CLOSE if length is None else LENGTH

    def _skip_interim(self, status: int) -> None:
        """RFC 9110 15.2: any number of 1xx may come first, within reason; 101 was not asked for."""
        self._interim += 1
        if status < 100 or status == 101 or self._interim > MAX_INTERIM:
            raise BadAnswer(f"Unexpected interim answer {status}.")
        self._begin_head()

    def _feed_length(self, data: bytes) -> None:
        left = self._left - len(data)
        if left < 0:
            self.excess = True
            data = data[: self._left]
        self._left = left
        self.on_body(data)
        if left <= 0:
            self._finish()

    def _feed_chunked(self, data: bytes) -> None:
        before = self.buffered
        try:
            self._parse(data)
        except BadAnswer:
            if not self.complete:
                raise
            self.excess = True
        if self.complete:
            self._finish()
        elif self.buffered > before:
            self._framing = 0
        else:
            # Chunk extensions and trailers carry nothing we pass on; without a bound they are a place to hide in.
            self._framing += len(data)
            if self._framing > MAX_HEAD:
                raise BadAnswer(f"More than {MAX_HEAD} bytes of chunk framing without body.")

    def _finish(self) -> None:
        self._stage = DONE
        self.complete = True
        self.stop()


def parse_framing(headers: Headers, version: str) -> tuple[int | None, bool]:
    """(declared length, chunked) of an answer. Raises BadAnswer for shapes that can be read in two ways."""
    length: int | None = None
    chunked = False
    for name, value in headers:
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            digits = value.strip(b" \t")
            if length is not None or not digits.isdigit() or len(digits) > 18:
                raise BadAnswer("Content-Length is repeated or not a number.")
            length = int(digits)
        elif size == 17 and name.lower() == b"transfer-encoding":
            if chunked or version == "1.0" or value.strip(b" \t").lower() != b"chunked":
                raise BadAnswer("Transfer-Encoding is not chunked, repeated, or in an HTTP/1.0 answer.")
            chunked = True
    if chunked and length is not None:
        raise BadAnswer("Both Content-Length and Transfer-Encoding are given.")
    return length, chunked
