"""Names that attack, on every page: model, endpoint, alias, rule, note, error, tag, path and client alike."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.browser.scenes import EVIL, LONG, hostile
from tests.portal.every_page import every_address, fill

pytestmark = pytest.mark.django_db

QUOTES = "'; drop table x; --{{7*7}}{% url %}\\u003cscript\\u003e\0"


class Reader(HTMLParser):
    """What a browser would run. Pages of ours have no inline scripts and no handlers: any is the attack's."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        self.found += [f"{tag} {name}" for name in fields if name.startswith("on")]
        if tag == "script" and not (fields.get("src") or "").startswith(("/static/", "/admin/jsi18n/")):
            self.found.append("script")
        for name in ("href", "src", "action", "formaction"):
            if re.match(r"\s*(javascript|data|vbscript):", fields.get(name) or "", re.IGNORECASE):
                self.found.append(f"{tag} {name}={fields[name]}")
        if tag == "img" and fields.get("src") == "x":
            self.found.append("img")


@pytest.mark.parametrize("text", [EVIL + QUOTES, LONG])
def test_it_shows_hostile_text_inert_on_every_page(admin_client, text):
    rows: list[dict[str, Any]] = hostile("http://127.0.0.1:9")
    for row in rows:
        row["name"] = (row["name"][:1] + text)[:100]
        row["models"].append({"name": text[:500]})
    fill(rows, text, 2)
    wrong = {}
    for pattern, address in every_address(admin_client):
        response = admin_client.get(address)
        assert response.status_code == 200, pattern
        if response.headers["Content-Type"].startswith("text/html"):
            reader = Reader()
            reader.feed(response.content.decode())
            wrong[pattern] = reader.found
        else:
            assert response.headers["Content-Type"] == "application/json"
            assert response.headers["X-Content-Type-Options"] == "nosniff"

    assert {pattern: found for pattern, found in wrong.items() if found} == {}
