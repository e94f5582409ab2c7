"""The API door in this process, before scripted backends on real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from endpoints import loading
from endpoints.conf import conf
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, ModelAlias, Revision, RoutingRule
from endpoints.tasks import running_tasks
from olla_site.handler import APIHandler
from olla_site.server import AbortResponse
from proxy.admission import admission
from proxy.finished import flush, subscribe, unsubscribe
from proxy.live import live
from proxy.record import RequestRecord
from proxy.upstream import close_door, door
from tests.fakes import come_true
from tests.translation.grammar import read_stream


@pytest.fixture
def still_clock(monkeypatch: pytest.MonkeyPatch) -> float:
    """The wall clock stands still: what is counted by its minutes and seconds falls into one of each."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    return now


@dataclass
class Exchange:
    """One request through the door, as an ASGI server would make it; `leave()` is the client hanging up."""

    task: asyncio.Task[None]
    left: asyncio.Event
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    complete: bool = False
    aborted: bool = False

    @property
    def body(self) -> bytes:
        """What the client has so far."""
        return b"".join(self.chunks)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def leave(self) -> None:
        """Hang up."""
        self.left.set()

    async def wait_bytes(self, count: int, within: float = 30) -> None:
        """Wait until the client has that many body bytes."""
        async with asyncio.timeout(within), self.arrived:
            await self.arrived.wait_for(lambda: len(self.body) >= count)

    async def done(self, within: float = 60) -> Exchange:
        """Wait for the end of the exchange."""
        async with asyncio.timeout(within):
            await self.task
        return self


class Proxy:
    """What the tests drive."""

    def __init__(self) -> None:
        self.handler = APIHandler()

    async def add(self, url: str, name: str = "one", models: Sequence[str] = ("m",), **columns: Any) -> Endpoint:
        """Register a healthy endpoint that lists `models`."""
        columns.setdefault("backend_type", "openai-compatible")
        columns.setdefault("check_interval", 3600)  # nobody probes: after three intervals it would count as stale
        endpoint: Endpoint = await sync_to_async(self._add)(url, name, models, columns)
        return endpoint

    def _add(self, url: str, name: str, models: Sequence[str], columns: dict[str, Any]) -> Endpoint:
        status = columns.pop("status", "healthy")
        endpoint = Endpoint(name=name, url=url, **columns)
        endpoint.save()
        now = timezone.now()
        EndpointHealth.objects.create(endpoint=endpoint, status=status, last_checked=now, next_check=now)
        DiscoveredModel.objects.bulk_create(DiscoveredModel(endpoint=endpoint, name=model) for model in models)
        self._refresh()
        return endpoint

    async def clear(self) -> None:
        """Take every endpoint, alias and rule out again."""
        for table in (RoutingRule, ModelAlias, Endpoint):
            await table.objects.all().adelete()

    async def refresh(self) -> None:
        """Take up what a test wrote to the tables."""
        await sync_to_async(self._refresh)()

    @staticmethod
    def _refresh() -> None:
        Revision.bump()
        loading.refresh(force=True)

    def open(
        self,
        method: str,
        path: str,
        body: Any = b"",
        headers: Sequence[tuple[str, str]] = (),
        query: bytes = b"",
        client: str = "10.1.2.3",
    ) -> Exchange:
        """Start a request. A body that is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query,
            "headers": [(b"host", b"olla.test:40114"), *((n.lower().encode(), v.encode()) for n, v in headers)],
            "client": (client, 5555),
            "server": ("127.0.0.1", 40114),
            "scheme": "http",
        }
        left = asyncio.Event()
        exchange = Exchange(asyncio.get_running_loop().create_future(), left)  # type: ignore[arg-type]
        exchange.task = asyncio.get_running_loop().create_task(self._run(scope, raw, exchange))
        return exchange

    async def call(self, *args: Any, **kwargs: Any) -> Exchange:
        """A request and its whole answer."""
        return await self.open(*args, **kwargs).done()

    async def chat(self, prefix: str = "openai", **fields: Any) -> Exchange:
        """A chat completion for model m."""
        return await self.call("POST", f"/olla/{prefix}/v1/chat/completions", {"model": "m", **fields})

    async def _run(self, scope: dict[str, Any], body: bytes, exchange: Exchange) -> None:
        given = False

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await exchange.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                exchange.status, exchange.headers = message["status"], message["headers"]
                return
            async with exchange.arrived:
                if message["body"]:
                    exchange.chunks.append(message["body"])
                exchange.complete = not message.get("more_body", False)
                exchange.arrived.notify_all()

        try:
            await self.handler(scope, receive, send)
        except AbortResponse:
            exchange.aborted = True
        finally:
            flush()
        check_grammar(exchange)

    async def settled(self, within: float = 30) -> None:
        """Wait until nothing is in flight and no background task is left."""
        await come_true(lambda: not live.in_flight and not running_tasks(), within)


def check_grammar(exchange: Exchange) -> None:
    """Whatever a test asks of a stream of translated events, each whole one must keep the grammar."""
    is_stream = (exchange.header("content-type") or "").startswith("text/event-stream")
    if exchange.complete and is_stream and exchange.header("x-olla-mode") == "translation":
        read_stream(exchange.body, live=conf().translators_anthropic_live_arguments)


@pytest.fixture
async def proxy(transactional_db: None) -> AsyncIterator[Proxy]:
    """A door with no endpoints yet."""
    live.reset()
    door_of_test = Proxy()
    yield door_of_test
    await close_door()
    loading.forget()
    live.reset()
    admission.forget()


def open_connections() -> int:
    """Connections of the network door, idle ones included."""
    return door().transport.count_connections()[0]


@pytest.fixture
def records() -> Iterator[list[RequestRecord]]:
    """Every record that is finished while the test runs."""
    seen: list[RequestRecord] = []
    subscribe(seen.extend)
    yield seen
    unsubscribe(seen.extend)
