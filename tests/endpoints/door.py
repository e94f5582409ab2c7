"""What the tests of the network door share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

from endpoints.tasks import running_tasks
from endpoints.transport import Answer, Request, Target, Transport
from tests.fakes import ScriptedBackend, come_true, stream_of

GET = Request(b"GET", b"/", [(b"Host", b"x")])
HEAD = Request(b"HEAD", b"/", [(b"Host", b"x")])


def post(body: bytes) -> Request:
    """A POST with its length."""
    return Request(b"POST", b"/v1/chat", [(b"Host", b"x"), (b"Content-Length", b"%d" % len(body))], body)


def chunked_post(*pieces) -> Request:
    """A POST whose body comes in pieces."""
    return Request(b"POST", b"/", [(b"Host", b"x"), (b"Transfer-Encoding", b"chunked")], stream_of(*pieces))


def count_sockets() -> int:
    """How many sockets this process has open."""
    links = (link for link in Path("/proc/self/fd").iterdir())
    found = 0
    for link in links:
        with suppress(OSError):
            found += str(link.readlink()).startswith("socket:")
    return found


@contextmanager
def only_loopback() -> Iterator[None]:
    """Fail, without a packet, when a test is about to connect to anything but this machine."""
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def guarded(sock, address):
        assert ip_address(address[0]).is_loopback, f"connecting to {address}"
        await connect(sock, address)

    loop.sock_connect = guarded  # type: ignore[method-assign]
    yield
    loop.sock_connect = connect  # type: ignore[method-assign]


# For what nothing announces.
settle = come_true


@asynccontextmanager
async def open_transport(**options) -> AsyncIterator[Transport]:
    """A transport that notices limits quickly; fails when it leaves a task, a connection or a socket."""
    transport = Transport(sweep_interval=0.02, **options)
    tasks, sockets = asyncio.all_tasks(), count_sockets()
    with only_loopback():
        yield transport
    await transport.aclose()
    # The backend's side, in this process too, ends a moment later; what never ends is a leak.
    await settle(lambda: count_sockets() <= sockets)
    await settle(lambda: asyncio.all_tasks() - tasks <= {asyncio.current_task()})
    assert transport.count_connections() == (0, 0)
    assert running_tasks() == 0


async def fetch(transport: Transport, backend: ScriptedBackend, request: Request = GET) -> tuple[Answer, bytes]:
    """One whole exchange."""
    answer = await transport.send(Target(backend.origin), request)
    return answer, await answer.read()
