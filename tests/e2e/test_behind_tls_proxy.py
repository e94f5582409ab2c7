"""The pages behind a proxy that ends TLS and says so in headers: signing in, secure cookies, HSTS, host names."""

from __future__ import annotations

import http.client
import re
import socketserver
import ssl
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.fakes import make_certificates
from tests.live import LiveServer, first_password

NAME = "olla.example.org"


class HeaderProxy(socketserver.ThreadingTCPServer):
    """Ends TLS on a free port of the loopback and passes each request on with X-Forwarded-* set."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, upstream: LiveServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.upstream = upstream

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no event."""


class _Handler(socketserver.StreamRequestHandler):
    server: HeaderProxy

    def handle(self) -> None:
        """One request, one answer, closed."""
        method, path, _ = self.rfile.readline().decode("latin-1").split()
        headers = http.client.parse_headers(self.rfile)
        body = self.rfile.read(int(headers.get("Content-Length", 0)))
        for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Connection"):
            del headers[name]
        headers["X-Forwarded-For"] = self.client_address[0]
        headers["X-Forwarded-Proto"] = "https"
        headers["X-Forwarded-Host"] = headers["Host"]
        headers.replace_header("Host", "127.0.0.1")
        connection = http.client.HTTPConnection(self.server.upstream.host, self.server.upstream.port, timeout=30)
        connection.request(method, path, body, dict(headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        kept = [pair for pair in answer.getheaders() if pair[0].lower() not in ("connection", "content-length")]
        lines += [f"{name}: {value}" for name, value in kept]
        lines += [f"Content-Length: {len(content)}", "Connection: close", "", ""]
        self.wfile.write("\r\n".join(lines).encode("latin-1") + content)
        connection.close()


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    env = {
        "OLLA_TRUSTED_PROXIES": "127.0.0.1",
        "OLLA_HTTPS": "1",
        "OLLA_ALLOWED_HOSTS": NAME,
    }
    with LiveServer(env=env) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client that reaches the server through the proxy, under its public name."""
    files = make_certificates(tmp_path_factory.mktemp("tls"), names=(NAME,))
    with HeaderProxy(files.server_context(), server) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        verify = ssl.create_default_context(cafile=files.ca_file)
        with httpx.Client(
            base_url=f"https://{NAME}:{proxy.port}", transport=ByName(verify, proxy.port), timeout=30
        ) as client:
            yield client
        proxy.shutdown()
        thread.join(30)


class ByName(httpx.HTTPTransport):
    """Connects to the proxy whatever the URL's name is, and checks its certificate for that name."""

    def __init__(self, verify: ssl.SSLContext, port: int) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._port = port

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it to the loopback; Host and the name in TLS stay the public ones."""
        request.extensions = {**request.extensions, "sni_hostname": NAME}
        name, request.url = request.url, request.url.copy_with(host="127.0.0.1")
        try:
            return super().handle_request(request)
        finally:
            request.url = name


def sign_in(server: LiveServer, browser: httpx.Client, **headers: str) -> httpx.Response:
    form = browser.get("/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
    assert token
    fields = {"username": "admin", "password": first_password(), "csrfmiddlewaretoken": token[1]}
    address = str(browser.base_url).rstrip("/")
    return browser.post(
        "/admin/login/?next=/admin/", data=fields, headers={"Origin": address, "Referer": f"{address}/", **headers}
    )


def test_it_signs_in_to_the_admin_with_secure_cookies(server, browser):
    answer = sign_in(server, browser)

    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")
    cookies = answer.headers.get_list("set-cookie")
    assert cookies
    assert all("Secure" in cookie for cookie in cookies)
    assert browser.get("/admin/").status_code == 200


def test_it_tells_browsers_to_stay_with_https(browser):
    assert browser.get("/accounts/login/").headers["Strict-Transport-Security"].startswith("max-age=31536000")


def test_it_shows_its_public_address(server, browser):
    sign_in(server, browser)

    assert str(browser.base_url).rstrip("/") in browser.get("/connect/").text


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": f"http://{NAME}"}])
def test_it_refuses_a_form_of_another_origin(server, browser, headers):
    assert sign_in(server, browser, **headers).status_code == 403


def test_it_refuses_a_form_whose_referer_is_another_site(server, browser):
    form = browser.get("/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
    assert token
    fields = {"username": "admin", "password": "x", "csrfmiddlewaretoken": token[1]}

    answer = browser.post("/admin/login/", data=fields, headers={"Referer": "https://evil.example/"})

    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["/accounts/login/", "/version"])
@pytest.mark.parametrize(("host", "forwarded"), [("evil.example", NAME), ("127.0.0.1", "evil.example")])
def test_it_judges_both_host_names(server, path, host, forwarded):
    told = {"Host": host, "X-Forwarded-Host": forwarded, "X-Forwarded-For": "198.51.100.7"}

    answer = httpx.get(server.url + path, headers=told, trust_env=False, timeout=60)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_host")


def test_it_takes_nobody_elses_word_for_https():
    with LiveServer(env={"OLLA_HTTPS": "1"}) as server:
        told = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"}
        answer = httpx.get(f"{server.url}/accounts/login/", headers=told, trust_env=False, timeout=60)

    assert "Strict-Transport-Security" not in answer.headers
