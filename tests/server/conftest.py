"""One server for the tests that only ask it something; tests that end it start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live import LiveServer
from tests.server import raw
from tests.server.raw import assert_idle

APP = "tests.server.apps:application"
LIMITS = {
    "OLLA_MAX_BODY_SIZE": "2097152",
    "OLLA_BODY_BUDGET": "4194304",
    "OLLA_MAX_HEADER_SIZE": "16384",
    "OLLA_HEADER_TIMEOUT": "2",
    "OLLA_BODY_STALL_TIMEOUT": "2",
}


@pytest.fixture(scope="session")
def shared_server() -> Iterator[LiveServer]:
    """A server with small limits and short deadlines around `tests.server.apps`."""
    with LiveServer(app=APP, env=LIMITS) as server:
        yield server


@pytest.fixture(autouse=True)
def close_clients() -> Iterator[None]:
    """Close the sockets a test has left open."""
    yield
    while raw.opened:
        raw.opened.pop().close()


@pytest.fixture
def server(shared_server: LiveServer) -> Iterator[LiveServer]:
    """The shared server, found idle again after each test."""
    yield shared_server
    while raw.opened:
        raw.opened.pop().close()
    assert_idle(shared_server)
