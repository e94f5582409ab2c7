"""The admin desk for tests: form data as a browser sends it, and rows made directly."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from django.test import Client
from django.urls import reverse

from endpoints.models import Endpoint
from endpoints.secrets import Secret

ADD = "admin:endpoints_endpoint_add"
LIST = "admin:endpoints_endpoint_changelist"

FILLED: dict[str, Any] = {
    "name": "gpu-1",
    "url": "http://127.0.0.1:11434",
    "backend_type": "ollama",
    "state": "active",
    "priority": "100",
    "weight": "1.0",
    "check_interval": "5",
    "check_timeout": "2",
    "auth_type": "none",
    "forward_client_auth": "default",
    "anthropic_mode": "auto",
    "verify_tls": "on",
}


class _Errors(HTMLParser):
    """Collects the text of error lists."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "ul" and "errorlist" in (dict(attrs).get("class") or ""):
            self.depth += 1
        elif tag == "li" and self.depth:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "ul" and self.depth:
            self.depth -= 1

    def handle_data(self, data: str) -> None:
        if self.depth and self.texts:
            self.texts[-1] += data


def error_texts(page: str) -> list[str]:
    """The messages of every field error on a page."""
    parser = _Errors()
    parser.feed(page)
    return [text.strip() for text in parser.texts]


def edit_address(endpoint: Endpoint) -> str:
    return reverse("admin:endpoints_endpoint_change", args=[endpoint.pk])


def form_data(endpoint: Endpoint, **changes: Any) -> dict[str, Any]:
    """What a browser sends when the stored endpoint's form is saved with some fields changed."""
    data = {
        **FILLED,
        "name": endpoint.name,
        "url": endpoint.url,
        "backend_type": endpoint.backend_type,
        "auth_type": endpoint.auth_type,
        "auth_header": endpoint.auth_header,
        "health_check_url": endpoint.health_check_url,
        "model_url": endpoint.model_url,
        "extra_headers": "\n".join(
            f"{line.partition(':')[0]}: ********" for line in endpoint.extra_headers.reveal().splitlines()
        ),
        **changes,
    }
    if not data["verify_tls"]:
        del data["verify_tls"]
    return data


def add(client: Client, **changes: Any) -> Any:
    return client.post(reverse(ADD), {**FILLED, **changes}, follow=True)


def make_endpoint(**values: Any) -> Endpoint:
    secrets = {"auth_username", "auth_secret", "extra_headers"}
    made: Endpoint = Endpoint.objects.create(
        **{
            "name": "gpu-1",
            "url": "http://127.0.0.1:11434",
            "backend_type": "ollama",
            **{key: Secret(value) if key in secrets else value for key, value in values.items()},
        }
    )
    return made
