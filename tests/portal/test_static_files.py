"""Static files: served by the product itself, safely, with what browsers need to keep them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.templatetags.static import static

from olla_site.static_files import StaticApp, build_static_app, list_files


async def follow(scope, receive, send):
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"next"})


@pytest.fixture(scope="module")
def app() -> Any:
    return build_static_app(follow)


async def ask(app, path, *, method="GET", query="", **headers) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    start, *rest = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(each["body"] for each in rest)


def read(path: str) -> bytes:
    return Path(str(finders.find(path))).read_bytes()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("admin/css/base.css", "text/css"),
        ("admin/js/core.js", "text/javascript"),
        ("admin/img/icon-yes.svg", "image/svg+xml"),
        ("portal/portal.css", "text/css"),
        ("endpoints/times.js", "text/javascript"),
    ],
)
async def test_it_serves_files_of_every_application(app, path, kind):
    status, headers, body = await ask(app, f"/static/{path}")

    assert status == 200
    assert headers["content-type"].startswith(kind)
    assert headers["content-length"] == str(len(body))
    assert headers["x-content-type-options"] == "nosniff"
    assert body == read(path)


async def test_it_hands_everything_else_on(app):
    assert (await ask(app, "/admin/"))[0] == 299
    assert (await ask(app, "/staticity"))[0] == 299


@pytest.mark.parametrize(
    "path",
    [
        "/static/missing.css",
        "/static/",
        "/static/admin",
        "/static/admin/css/",
        "/static/../manage.py",
        "/static/admin/css/../css/base.css",
        "/static//etc/passwd",
        "/static/..\\manage.py",
        "/static/admin/css/base.css\0",
        "/static/" + "a" * 5000,
    ],
)
async def test_it_answers_404_to_what_is_not_in_its_index(app, path):
    assert (await ask(app, path))[0] == 404


async def test_it_answers_304_to_a_known_tag(app):
    _, headers, _ = await ask(app, "/static/admin/css/base.css")

    status, _, body = await ask(app, "/static/admin/css/base.css", if_none_match=headers["etag"])

    assert (status, body) == (304, b"")


@pytest.mark.parametrize("accepted", ["gzip", "br;q=1.0, GZIP;q=0.5, *;q=0"])
async def test_it_compresses_for_who_takes_it(app, accepted):
    for _ in range(2):  # made, then remembered
        _, headers, body = await ask(app, "/static/admin/css/base.css", accept_encoding=accepted)

        assert (headers["content-encoding"], headers["vary"]) == ("gzip", "accept-encoding")
        assert headers["content-length"] == str(len(body))
        assert len(body) < len(read("admin/css/base.css")) / 2
        assert gzip.decompress(body) == read("admin/css/base.css")

    status, _, _ = await ask(app, "/static/admin/css/base.css", if_none_match=headers["etag"])
    assert (headers["etag"][:2], status) == ("W/", 304)


@pytest.mark.parametrize(
    "fields",
    [{}, {"accept_encoding": "gzip;q=0"}, {"accept_encoding": "identity"}, {"accept_encoding": "br, zstd"},
     {"accept_encoding": "gzip", "range": "bytes=0-99"}],
)  # fmt: skip
async def test_it_compresses_for_nobody_else(app, fields):
    _, headers, body = await ask(app, "/static/admin/css/base.css", **fields)

    assert "content-encoding" not in headers
    assert headers["vary"] == "accept-encoding"
    assert read("admin/css/base.css").startswith(body)


async def test_it_answers_304_to_an_unchanged_date(app):
    _, headers, _ = await ask(app, "/static/admin/css/base.css")

    status, _, _ = await ask(app, "/static/admin/css/base.css", if_modified_since=headers["last-modified"])

    assert status == 304


async def test_it_sends_no_body_to_head(app):
    status, headers, body = await ask(app, "/static/admin/css/base.css", method="HEAD")

    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_it_refuses_other_methods(app, method):
    status, headers, _ = await ask(app, "/static/admin/css/base.css", method=method)

    assert (status, headers["allow"]) == (405, "GET, HEAD")


async def test_it_lets_browsers_keep_versioned_addresses(app):
    path, _, query = static("portal/portal.css").partition("?")

    assert query.startswith("v=")
    assert "immutable" in (await ask(app, path, query=query))[1]["cache-control"]
    assert "immutable" not in (await ask(app, path))[1]["cache-control"]


async def test_it_changes_the_version_with_the_content(settings):
    assert static("portal/portal.css") != static("portal/tokens.css").replace("tokens", "portal")


async def test_it_hands_web_sockets_on():
    seen = []

    async def following(scope, receive, send):
        seen.append(scope["type"])

    await StaticApp(following)({"type": "websocket", "path": "/static/x"}, None, None)  # type: ignore[arg-type]

    assert seen == ["websocket"]


def test_it_finds_no_file_twice_under_two_paths():
    files = list_files()

    assert all(address.startswith("/static/") for address in files)
    assert len(files) > 100
