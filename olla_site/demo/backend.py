"""DemoBackend: routes, starts and stops one demo backend.

async with DemoBackend(kind="ollama", models=("demo-llama:8b",)) as backend:
    ... backend.url ... backend.state.hang_ups ...
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from types import TracebackType

from olla_site.demo import ollama_api, openai_api
from olla_site.demo.state import DemoState, RefusalError
from olla_site.demo.wire import Answer, Connection, Request

logger = logging.getLogger(__name__)

KINDS = ("ollama", "openai")
DEFAULT_MODELS = ("demo-llama:8b", "demo-embed:latest")


class DemoBackend:
    """One backend on the loopback address. Port 0 takes a free one; `url` is known once it is started."""

    def __init__(
        self,
        *,
        kind: str = "ollama",
        models: tuple[str, ...] = DEFAULT_MODELS,
        delay: float = 0.0,
        name: str = "demo",
        port: int = 0,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}: use one of {', '.join(KINDS)}")
        if not models:
            raise ValueError("a demo backend needs a model")
        self.state = DemoState(name=name, kind=kind, models=models, delay=delay)
        self.port = port
        self._routes = {**openai_api.ROUTES, **(ollama_api.ROUTES if kind == "ollama" else {})}
        self._paths = {path for _, path in self._routes}
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection, as a process that dies does. May be started again."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        ending = [task for each in tuple(self._connections) if (task := each.abort()) is not None]
        await asyncio.gather(*ending, return_exceptions=True)

    async def __aenter__(self) -> DemoBackend:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _connect(self) -> Connection:
        return Connection(self._handle, self.state.name, self._connections)

    async def _handle(self, request: Request, answer: Answer) -> None:
        started, method = time.monotonic(), request.method
        self.state.seen.append(dataclasses.replace(request, body=b""))
        try:
            await self._dispatch(request, answer)
        except RefusalError as refusal:
            dialect = ollama_api if request.path.startswith("/api/") else openai_api
            await answer.send_json(refusal.status, dialect.build_error(refusal))
        finally:
            # Probes ask every few seconds; only what a client might have sent is worth a line.
            logger.log(
                logging.DEBUG if method == "GET" else logging.INFO,
                "%s: %s %s %s, %d bytes, %.0f ms",
                self.state.name,
                method,
                request.target,
                answer.status,
                answer.sent,
                1000 * (time.monotonic() - started),
            )

    async def _dispatch(self, request: Request, answer: Answer) -> None:
        method = "GET" if request.method == "HEAD" else request.method
        handler = self._routes.get((method, request.path))
        if handler is None and method == "GET" and request.path.startswith("/v1/models/"):
            handler = openai_api.show_model
        if handler is None:
            known = request.path in self._paths
            raise RefusalError(405 if known else 404, f"the demo backend does not serve {method} {request.path}")
        await handler(self.state, request, answer)
