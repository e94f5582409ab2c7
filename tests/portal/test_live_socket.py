"""The WebSocket of pages, on the real server: who is let in, and what it says."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.browser.desk import fill_fleet
from tests.live import LiveServer, first_password

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROW = {"name": "gpu-1", "url": "http://10.0.0.11:11434", "backend_type": "ollama", "health": {"status": "healthy"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[LiveServer]:
    with LiveServer(env={"OLLA_PORTAL_ANONYMOUS_NETWORKS": "10.99.0.0/16"}) as running:
        await fill_fleet(running, [json.loads(json.dumps(ROW))])
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cookie(server: LiveServer) -> str:
    """The session of the first administrator."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(f"{server.url}/accounts/login/") as page:
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', await page.text())
        assert token
        form = {"csrfmiddlewaretoken": token[1], "username": "admin", "password": first_password()}
        async with session.post(f"{server.url}/accounts/login/", data=form, allow_redirects=False) as answer:
            return f"sessionid={answer.cookies['sessionid'].value}"


async def open_status(server: LiveServer, path: str = "/portal/live", **headers: str) -> int:
    """The status the handshake is answered with; 101 is open."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(f"{server.url}{path}", headers=headers):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


async def test_it_lets_nobody_listen_without_an_account(server):
    for path in ("/portal/live", "/portal/live/requests"):
        assert await open_status(server, path) == 403
        assert await open_status(server, path, Cookie="sessionid=nonsense") == 403


async def test_it_lets_an_account_listen_from_its_own_page_only(server, cookie):
    assert await open_status(server, Cookie=cookie) == 101
    assert await open_status(server, Cookie=cookie, Origin=server.url) == 101
    assert await open_status(server, Cookie=cookie, Origin="https://evil.example") == 403
    assert await open_status(server, Cookie=cookie, Origin="null") == 403
    assert await open_status(server, Cookie=cookie, Host="evil.example") == 403


async def test_it_takes_no_forged_address_for_one_inside(server):
    assert await open_status(server, **{"X-Forwarded-For": "10.99.0.1"}) == 403


async def test_it_knows_no_other_sockets(server, cookie):
    assert await open_status(server, "/portal/live/", Cookie=cookie) == 403
    assert await open_status(server, "/", Cookie=cookie) == 403


async def read(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await socket.receive_str(timeout=30))
    return found


@asynccontextmanager
async def listening(
    server: LiveServer, cookie: str, path: str = "/portal/live"
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A page that listens."""
    address = f"{server.url}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, headers={"Cookie": cookie}) as socket,
    ):
        yield socket


async def test_it_says_where_things_stand_and_then_what_changes(server, cookie):
    async with listening(server, cookie) as socket:
        full = await read(socket)
        while "gpu-1" not in json.dumps(full["summary"]) and full["summary"]["total"] != 1:
            full = await read(socket)
        row = next(iter(full["rows"].values()))
        assert (row["label"], row["tone"]) == ("healthy", "good")
        assert len(full["history"]["requests"]) == 180

        changed = {**ROW, "health": {"status": "offline", "last_error": "Connection refused."}}
        await fill_fleet(server, [changed])
        message = await read(socket)
        while "shape" not in message:
            message = await read(socket)
        assert message["summary"]["ready"] == 0


async def test_it_ends_a_socket_that_talks(server, cookie):
    async with listening(server, cookie) as socket:
        await read(socket)
        await socket.send_str("hello")
        while (message := await socket.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
            continue
        assert message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        assert socket.close_code == 4001


async def test_it_tells_of_requests_within_two_seconds(server, cookie):
    async with listening(server, cookie, "/portal/live/requests") as socket:
        assert await read(socket) == {"log": ""}
        async with aiohttp.ClientSession() as session:
            body = {"model": "nobody-has-this", "messages": []}
            async with session.post(f"{server.url}/olla/openai/v1/chat/completions", json=body) as answer:
                assert answer.status in {404, 503}
        assert "nobody-has-this" in (await read(socket))["log"]
