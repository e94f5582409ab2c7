"""Static files served by the product itself, in every mode and without `collectstatic`.

Every file the static finders know is indexed once at start-up; a request is answered by a look into that
index, so no path of a request ever reaches the file system. Django's middleware never sees these requests.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.storage import StaticFilesStorage
from whitenoise import WhiteNoise
from whitenoise.responders import Response, StaticFile

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_AGE = 300  # seconds; addresses with a version (see VersionedStorage) are kept for a year
YEAR = 31_536_000
LEAST = 500  # bytes; less is not worth compressing
PACKABLE = ("text/", "application/javascript", "application/json", "image/svg+xml")
NO_WEIGHT = re.compile(r";q=0(\.0*)?$")
# Pages of the admin and portal are the only users: nothing here may run or be framed by itself.
GUARD = ((b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin"))
PASSED_HEADERS = {
    b"if-none-match": "HTTP_IF_NONE_MATCH",
    b"if-modified-since": "HTTP_IF_MODIFIED_SINCE",
    b"range": "HTTP_RANGE",
    b"accept-encoding": "HTTP_ACCEPT_ENCODING",
}


def list_files() -> dict[str, str]:
    """Every static file by its address; where two applications have one name, the first one's counts."""
    found: dict[str, str] = {}
    for finder in get_finders():
        for name, storage in finder.list([]):
            found.setdefault(f"{settings.STATIC_URL}{name}", storage.path(name))
    return found


class StaticApp:
    """An ASGI application: answers below STATIC_URL, hands everything else on."""

    def __init__(self, following: App) -> None:
        self._following = following
        self._packed: dict[bytes, bytes] = {}  # by a file's digest
        self._index = WhiteNoise(None, max_age=MAX_AGE)
        for address, path in list_files().items():
            self._index.add_file_to_dictionary(address, path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith(settings.STATIC_URL):
            await self._following(scope, receive, send)
            return
        file: StaticFile | None = self._index.files.get(scope["path"])
        if file is None:
            await _send_missing(scope, send)
            return
        asked = {PASSED_HEADERS[n]: v.decode("latin-1") for n, v in scope["headers"] if n in PASSED_HEADERS}
        # Opening and reading a file may wait for a disk, so it leaves the event loop.
        response, body = await asyncio.to_thread(self._read, file, scope["method"], asked)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        headers.append((b"vary", b"accept-encoding"))
        if scope.get("query_string", b"").startswith(b"v="):
            headers = [pair for pair in headers if pair[0] != b"cache-control"]
            headers.append((b"cache-control", f"max-age={YEAR}, public, immutable".encode()))
        await send({"type": "http.response.start", "status": int(response.status), "headers": [*headers, *GUARD]})
        await send({"type": "http.response.body", "body": body})

    def _read(self, file: StaticFile, method: str, asked: dict[str, str]) -> tuple[Response, bytes]:
        """The answer and its body, compressed for who takes that. In a thread."""
        # Tags of compressed files are weak; RFC 9110 section 13.1.2 compares them without that mark.
        if "HTTP_IF_NONE_MATCH" in asked:
            asked["HTTP_IF_NONE_MATCH"] = asked["HTTP_IF_NONE_MATCH"].removeprefix("W/")
        response = file.get_response(method, asked)
        if response.file is None:
            return response, b""
        with response.file:
            body = response.file.read()
        if response.status == HTTPStatus.OK and takes_gzip(asked.get("HTTP_ACCEPT_ENCODING", "")):
            return self._compress(Response(response.status, list(response.headers), None), body)
        return response, body

    def _compress(self, response: Response, body: bytes) -> tuple[Response, bytes]:
        """The same file in gzip, made once; what gains nothing by it stays as it is."""
        fields = dict(response.headers)
        if len(body) < LEAST or not fields["Content-Type"].startswith(PACKABLE):
            return response, body
        digest = hashlib.sha256(body).digest()
        packed = self._packed.get(digest) or gzip.compress(body, 9, mtime=0)
        self._packed[digest] = packed
        fields |= {"Content-Encoding": "gzip", "Content-Length": str(len(packed)), "ETag": f"W/{fields['ETag']}"}
        response.headers = list(fields.items())
        return response, packed


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not to refuse it."""
    parts = [part.replace(" ", "").lower() for part in accepted.split(",")]
    return any(part.split(";")[0] == "gzip" and not NO_WEIGHT.search(part) for part in parts)


async def _send_missing(scope: Scope, send: Send) -> None:
    body = b"There is no such file.\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *GUARD,
    ]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def build_static_app(following: App) -> App:
    """`following` with static files served in front of it. Reads the list of files, so call it at start-up."""
    return StaticApp(following)


class VersionedStorage(StaticFilesStorage):
    """Adds a version from the file's content to its address, so that an update is seen at once.

    Without collectstatic there is no manifest; the few files are read once for each process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._versions: dict[str, str] = {}

    def url(self, name: str | None) -> str:
        """The address with `?v=`; without it for a file that does not exist (anymore)."""
        plain = super().url(name)
        if not name:
            return plain
        if name not in self._versions or settings.DEBUG:
            self._versions[name] = _version(name)
        version = self._versions[name]
        return f"{plain}?v={version}" if version else plain


def _version(name: str) -> str:
    for finder in get_finders():
        path = finder.find(name)
        if path:
            return hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()[:12]
    return ""
