"""Headers of relayed answers, byte for byte off the socket: nothing lets a backend act as this site."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.browser.hostile import ALLOWED_AGAIN, HOSTILE_HEADERS, HostileSite, hostile_reply, open_site
from tests.fakes import Cut, Raw, Reply, Step

pytestmark = pytest.mark.asyncio(loop_scope="session")

HTML = b"<script>parent.postMessage('hello', '*')</script>"
LARGE = HTML * 3000
EVENTS = [b"data: {}\n\n", 0.01, b"data: [DONE]\n\n"]
STATUSES = (200, 201, 206, 301, 302, 400, 401, 403, 404, 418, 429, 500, 502, 503)


def smuggled(line: bytes) -> Cut:
    """An answer whose head holds a line no strict reader takes."""
    return Cut(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + line + b"\r\nContent-Length: 2\r\n\r\nhi")


SCRIPT: dict[str, Step] = {
    **{f"/status/{status}": hostile_reply(HTML, status=status) for status in STATUSES},
    "/json-error": hostile_reply(b'{"error": {"message": "no"}}', b"application/json", 500),
    "/204": Reply(204, HOSTILE_HEADERS, framing=None, reason=b"Nothing"),
    "/304": Raw(Reply(304, [*HOSTILE_HEADERS, (b"ETag", b'"1"')]).head().replace(b"Content-Length: 0\r\n", b"")),
    "/large": hostile_reply(LARGE),
    "/chunked": hostile_reply(b"", chunks=[HTML, 0.01, HTML]),
    "/large-chunked": hostile_reply(b"", chunks=[LARGE, LARGE]),
    "/until-close": Reply(200, [(b"Content-Type", b"text/html"), *HOSTILE_HEADERS], chunks=[HTML], close=True),
    "/events": hostile_reply(b"", b"text/event-stream", chunks=EVENTS),
    "/lines": hostile_reply(b"", b"application/x-ndjson", chunks=[b"{}\n", 0.01, b"{}\n"]),
    "/no-type": hostile_reply(HTML, b""),
    "/gzip": Reply(200, [(b"Content-Encoding", b"gzip"), *HOSTILE_HEADERS], gzip.compress(HTML, mtime=0)),
    "/named": Reply(200, [(b"Connection", b"X-Content-Type-Options, Content-Security-Policy, X-Olla-Endpoint")]),
    "/interim": Reply(interim=b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: sessionid=evil\r\n\r\n", body=b"hi"),
    "/trailers": Reply(chunks=[b"hi"], trailers=HOSTILE_HEADERS),
    "/smuggled/bare-cr": smuggled(b"X-A: 1\rSet-Cookie: sessionid=evil"),
    "/smuggled/bare-lf": smuggled(b"X-A: 1\nSet-Cookie: sessionid=evil"),
    "/smuggled/folded": smuggled(b"X-A: 1\r\n Set-Cookie: sessionid=evil"),
    "/smuggled/space": smuggled(b"Set-Cookie : sessionid=evil"),
    "/smuggled/nul": smuggled(b"Set-Cookie\x00: sessionid=evil"),
}
RELAYED = [path for path in SCRIPT if not path.startswith("/smuggled/")]


@dataclass
class Answer:
    """One answer off the socket: `head` is everything before the first empty line."""

    raw: bytes

    @property
    def head(self) -> bytes:
        """Status line and headers."""
        return self.raw.split(b"\r\n\r\n", 1)[0]

    def values(self, name: str) -> list[str]:
        """Every value of a header."""
        lines = (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        return [value.strip().decode("latin-1") for key, _, value in lines if key.lower() == name.encode()]


async def ask(site: HostileSite, path: str, method: str = "GET", headers: str = "") -> Answer:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection(site.server.host, site.server.port)
    text = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n"
    writer.write(text.encode())
    async with asyncio.timeout(20):
        raw = await reader.read()
    writer.close()
    return Answer(raw)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HostileSite]:
    async with open_site(tmp_path_factory.mktemp("hostile-headers"), SCRIPT) as opened:
        yield opened


def assert_harmless(answer: Answer) -> None:
    """Exactly our two guards, none of the backend's own."""
    assert answer.values("content-security-policy") == ["sandbox"]
    assert answer.values("x-content-type-options") == ["nosniff"]
    assert answer.values("x-olla-endpoint") == ["evil"]
    assert answer.values("x-olla-request-id") != ["forged"]
    ours = {"content-security-policy", "x-content-type-options", "x-olla-endpoint", "x-olla-request-id"}
    for name in {name.decode().lower() for name, _ in HOSTILE_HEADERS} - ours - ALLOWED_AGAIN:
        assert answer.values(name) == [], name
    assert b"=evil" not in answer.raw


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", RELAYED)
async def test_it_disarms_every_relayed_answer(site, path, method):
    answer = await ask(site, f"/olla/proxy{path}", method)
    assert_harmless(answer)
    if method == "HEAD":
        assert answer.raw == answer.head + b"\r\n\r\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_it_disarms_answers_to_every_method(site, method):
    assert_harmless(await ask(site, "/olla/proxy/status/200", method, "Content-Length: 0\r\n"))


@pytest.mark.parametrize("path", ["/304", "/status/206"])
async def test_it_disarms_answers_to_conditional_and_partial_requests(site, path):
    answer = await ask(site, f"/olla/proxy{path}", headers='If-None-Match: "1"\r\nRange: bytes=0-9\r\n')
    assert_harmless(answer)


@pytest.mark.parametrize("prefix", ["proxy", "openai", "openai-compatible", "OpenAI"])
async def test_it_disarms_answers_on_every_route(site, prefix):
    assert_harmless(await ask(site, f"/olla/{prefix}/status/200"))


async def test_it_disarms_answers_to_pages_of_other_origins(site):
    answer = await ask(site, "/olla/proxy/status/200", headers="Origin: https://app.example\r\n")
    assert answer.values("content-security-policy") == ["sandbox"]
    assert answer.values("access-control-allow-origin") == ["*"]
    assert answer.values("access-control-allow-credentials") == []


@pytest.mark.parametrize("path", [path for path in SCRIPT if path not in RELAYED])
async def test_it_takes_no_header_smuggled_into_another(site, path):
    answer = await ask(site, f"/olla/proxy{path}")
    assert answer.values("set-cookie") == []
    assert b"\nset-cookie" not in answer.raw.lower()
    assert b"\rset-cookie" not in answer.raw.lower()


async def test_it_keeps_the_administrators_cookies_from_the_backend(site):
    headers = f"Cookie: sessionid={site.session}; csrftoken=abcdefghijklmnop\r\nX-CSRFToken: abcdefghijklmnop\r\n"
    await ask(site, "/olla/proxy/status/200", headers=headers)
    seen = b"".join(request.raw for request in site.backend.requests)
    assert site.session.encode() not in seen
    assert b"abcdefghijklmnop" not in seen


@pytest.mark.parametrize("path", ["/olla/models", "/olla/proxy/v1/models", "/olla/nobody/x", "/internal/health"])
async def test_it_lets_no_browser_guess_the_type_of_its_own_answers(site, path):
    assert (await ask(site, path)).values("x-content-type-options") == ["nosniff"]


@pytest.mark.parametrize("wanted", ["script", "style", "worker", "sharedworker", "serviceworker", "audioworklet"])
async def test_it_gives_pages_of_this_site_no_code_of_a_backend(site, wanted):
    mine = await ask(
        site, "/olla/proxy/large", headers=f"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Dest: {wanted}\r\n"
    )
    assert mine.head.startswith(b"HTTP/1.1 403 ")
    # The backend's own page is sandboxed: an origin of its own, which may load its own parts.
    its_own = await ask(
        site, "/olla/proxy/large", headers=f"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: {wanted}\r\n"
    )
    assert its_own.head.startswith(b"HTTP/1.1 200 ")


UPGRADE = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


async def shake_hands(site: HostileSite, host: str, origin: str | None, path: str = "/ws/") -> Answer:
    """A WebSocket handshake."""
    reader, writer = await asyncio.open_connection(site.server.host, site.server.port)
    said = f"Origin: {origin}\r\n" if origin is not None else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n{said}{UPGRADE}\r\n".encode())
    async with asyncio.timeout(20):
        raw = await reader.read(65536)
    writer.close()
    return Answer(raw)


@pytest.mark.parametrize("path", ["/admin/", "/", "/olla/models", "/internal/health", "/version", "/static/x.css"])
async def test_it_refuses_rebound_names_on_both_doors(site, path):
    reader, writer = await asyncio.open_connection(site.server.host, site.server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: rebind.example:{site.server.port}\r\n\r\n".encode())
    async with asyncio.timeout(20):
        raw = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert Answer(raw).values("access-control-allow-origin") == []


@pytest.mark.parametrize("host", ["rebind.example", "127.0.0.1.rebind.example", "rebind.example:40114"])
async def test_it_refuses_rebound_names_to_sockets(site, host):
    answer = await shake_hands(site, host, f"http://{host}")
    assert answer.raw.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://127.0.0.1:1", "http://localhost"])
async def test_it_opens_no_socket_for_pages_of_others(site, origin):
    answer = await shake_hands(site, f"127.0.0.1:{site.server.port}", origin)
    assert answer.raw.startswith(b"HTTP/1.1 403 ")


async def test_it_answers_a_socket_to_nowhere_in_plain_http(site):
    host = f"127.0.0.1:{site.server.port}"
    answer = await shake_hands(site, host, f"http://{host}", "/nowhere/")
    assert answer.raw.startswith(b"HTTP/1.1 403 ")
    assert "Traceback" not in site.server.output()
