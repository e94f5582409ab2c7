"""A tiny server of static pages on an origin of its own, for pages that are not the product's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

_TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".html": "text/html; charset=utf-8"}


class PagesServer:
    """Serves `pages` (path -> HTML) and the files below `folders` (path prefix -> folder), GET only."""

    def __init__(self, pages: Mapping[str, str], folders: Mapping[str, Path] | None = None) -> None:
        self.pages = dict(pages)
        self.folders = dict(folders or {})
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._build_handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._server.server_address[1]

    def find(self, path: str) -> tuple[str, bytes] | None:
        """Content type and body of a path, None when there is nothing."""
        if path in self.pages:
            return _TYPES[".html"], self.pages[path].encode()
        for prefix, folder in self.folders.items():
            file = (folder / path.removeprefix(prefix)).resolve()
            if path.startswith(prefix) and file.is_relative_to(folder) and file.is_file():
                return _TYPES.get(file.suffix, "application/octet-stream"), file.read_bytes()
        return None

    def _build_handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append(self.path)
                found = outer.find(self.path.split("?", 1)[0])
                kind, body = found or ("text/plain", b"nothing here")
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store" if self.path in outer.pages else "max-age=600")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> PagesServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
