"""Secrets planted wherever one can be, then everything the product writes is looked through for them.

One real server with its prober, endpoints with every kind of credential before backends that send back all they
are sent, clients with keys of their own; then status, statistics, metrics, explain, traces, pages, exports,
webhooks, logs and the database file.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import canaries
from tests.fakes import Conn, ScriptedBackend, json_reply, sse_reply
from tests.live import ROOT, LiveServer

ENV_VALUE = "canary-environment-11aa0b"
FILE_VALUE = "canary-file-90ce21"
EXTRA = "canary-extra-header-5d01f7"
USER = "canary-user-31b7e0"
HOOK = "canary-webhook-7713ac"
PROBE = "canary-probe-query-02fd9e"
MINE = [
    ENV_VALUE, FILE_VALUE, EXTRA, HOOK, PROBE, canaries.BEARER, canaries.API_KEY, canaries.PASSWORD,
    canaries.COOKIE, canaries.QUERY, canaries.OPENAI_KEY,
    base64.b64encode(f"{USER}:{canaries.PASSWORD}".encode()).decode(),
]  # fmt: skip
COMPLETION = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}  # fmt: skip
CLIENT = {
    "Authorization": f"Bearer {canaries.OPENAI_KEY}", "X-Api-Key": canaries.API_KEY,
    "Cookie": f"sessionid={canaries.COOKIE}", "X-Team": "red",
}  # fmt: skip
QUERY = f"api_key={canaries.QUERY}&access_token={canaries.QUERY}"
CHAT = "/olla/openai/v1/chat/completions"
MESSAGES = "/olla/anthropic/v1/messages"
SAY = [{"role": "user", "content": "hi"}]
# What the seed process makes; its last line is the session key of an administrator.
SEED = """
import json, sys
import django
django.setup()
from datetime import timedelta
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from endpoints.models import AlertHook, DiscoveredModel, Endpoint, EndpointHealth
asked = json.loads(sys.argv[1])
call_command("migrate", verbosity=0)
for row in asked["endpoints"]:
    models = row.pop("models")
    endpoint = Endpoint.objects.create(**row)
    EndpointHealth.objects.create(endpoint=endpoint, status="healthy", next_check=timezone.now())
    for name in models:
        DiscoveredModel.objects.create(endpoint=endpoint, name=name)
for number, url in enumerate(asked["hooks"]):
    AlertHook.objects.create(name=f"hook {number}", kind=("json", "chat")[number], url=url)
client = Client()
client.force_login(User.objects.create_superuser("root", password="correct horse"))
print(client.cookies["sessionid"].value)
"""

COMMANDS = """
import json, sys
import django
django.setup()
from django.core.management import call_command
for name, *rest in json.loads(sys.argv[1]):
    call_command(name, *rest)
"""


async def echo(conn: Conn) -> None:
    """A backend that fails at everything, and says with which headers it was asked."""
    while (request := await conn.request()) is not None:
        told = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        text = f"refused {request.target.decode()} with {told}"
        reply = json_reply({"error": {"message": text}, "detail": text}, 500, [(b"X-Echo", text.encode()[:500])])
        await conn.play(reply, request)


async def answer(conn: Conn) -> None:
    """A backend that is well, and repeats what it was asked with in its headers."""
    while (request := await conn.request()) is not None:
        told = str(request.headers).encode()[:500]
        if request.method == b"GET":
            reply = json_reply({"object": "list", "data": [{"id": "m"}, {"id": "env"}]})
        elif b'"stream":true' in request.body.replace(b" ", b""):
            reply = sse_reply([{"choices": [{"index": 0, "delta": {"content": word}}]} for word in "abc"])
        else:
            reply = json_reply(
                COMPLETION, headers=[(b"Set-Cookie", b"k=" + canaries.COOKIE.encode()), (b"X-Told", told)]
            )
        await conn.play(reply, request)


@dataclass
class Heap:
    """All that was written, by where it stood."""

    parts: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, text: str | bytes) -> None:
        """Keep a text, which must not be empty: what is not there proves nothing."""
        assert text, where
        self.parts[where] = text.decode("utf-8", "replace") if isinstance(text, bytes) else text

    def leaks(self, secrets: list[str]) -> list[str]:
        """Where which secret stands."""
        return [f"{where}: {secret}" for where, text in self.parts.items() for secret in secrets if secret in text]


@dataclass
class Site:
    """The server under test and what belongs to it."""

    server: LiveServer
    folder: Path
    cookie: str
    hooks: list[ScriptedBackend]

    def run(self, *command: str) -> str:
        """What a management command writes, on the server's data."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.server.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr


def make_rows(good: str, bad: str) -> list[dict[str, Any]]:
    """Endpoints with every kind of credential."""
    extra = f"X-Extra-Key: {EXTRA}\nX-Team: {EXTRA}"
    kinds: dict[str, dict[str, Any]] = {
        "bearer": {"auth_type": "bearer", "auth_secret": canaries.BEARER, "extra_headers": extra},
        "key": {"auth_type": "api_key", "auth_header": "X-Own-Key", "auth_secret": canaries.API_KEY},
        "basic": {"auth_type": "basic", "auth_username": USER, "auth_secret": canaries.PASSWORD},
        "env": {"auth_type": "bearer", "auth_secret": "${OLLA_BACKEND_ONE}"},
        "file": {"auth_type": "bearer", "auth_secret": "${file:two}"},
    }
    rows: list[dict[str, Any]] = []
    for name, columns in kinds.items():
        common = {
            "backend_type": "openai-compatible",
            "forward_client_auth": "on",
            "check_interval": 1.0,
            "check_timeout": 10.0,  # a probe that a busy machine delays must put no endpoint out of reach
            "retry_statuses": "",
            **columns,
        }
        rows.append({"name": f"good-{name}", "url": good, "models": ["m", name], **common})
        probe = f"{bad}/health?api_key={PROBE}"
        rows.append(
            {
                "name": f"bad-{name}",
                "url": bad,
                "models": ["broken"],
                "health_check_url": probe,
                "model_url": probe,
            }
            | common
        )
    rows.append({"name": "gone", "url": "http://127.0.0.1:9", "models": ["gone"], "backend_type": "openai"})
    return rows


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A server with its prober on a database full of secrets."""
    folder = tmp_path / "data"
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "two").write_text(FILE_VALUE)
    env = {
        "OLLA_LOG_LEVEL": "DEBUG", "OLLA_LOG_FORMAT": "json", "OLLA_LOG_FILE": str(tmp_path / "olla.log"),
        "OLLA_ACCESS_LOG": "all", "OLLA_ALERT_HOLD": "0", "OLLA_ALERT_INTERVAL": "0.1",
        "OLLA_BREAKER_THRESHOLD": "2", "OLLA_BACKEND_ONE": ENV_VALUE, "OLLA_SECRETS_DIR": str(secrets),
        "OLLA_STICKY_SESSIONS": "1",
    }  # fmt: skip
    async with (
        ScriptedBackend(answer) as good, ScriptedBackend(echo) as bad,
        ScriptedBackend(json_reply({})) as hook, ScriptedBackend(json_reply({})) as chat,
    ):  # fmt: skip
        server = LiveServer(data_dir=folder, env=env, args=())
        asked = {"endpoints": make_rows(good.url, bad.url),
                 "hooks": [f"{each.url}/{HOOK}?token={HOOK}" for each in (hook, chat)]}  # fmt: skip
        made = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", SEED, json.dumps(asked)], cwd=ROOT, env=server.environment,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        await asyncio.to_thread(server.__enter__)
        try:
            yield Site(server, tmp_path, made.stdout.split()[-1], [hook, chat])
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)


# Path, model and what else the body says.
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    (CHAT, "m", {}), (CHAT, "env", {}), (CHAT, "file", {"stream": True}), (CHAT, "basic", {}), (CHAT, "key", {}),
    (CHAT, "bearer", {"stream": True}), (CHAT, "broken", {}), (CHAT, "broken", {"stream": True}),
    (CHAT, "gone", {}), (CHAT, "nobody", {}), (MESSAGES, "m", {"max_tokens": 9}),
    (MESSAGES, "broken", {"max_tokens": 9}), ("/olla/ollama/api/pull", "m", {}),
]  # fmt: skip


async def make_traffic(client: httpx.AsyncClient, heap: Heap, operator: str) -> None:
    """Requests of every kind; what the product itself puts into answers is kept, backends' own words are not."""
    for number, (path, model, more) in enumerate(REQUESTS):
        body = {"model": model, "messages": SAY, **more}
        for headers in (CLIENT, {**CLIENT, "X-Olla-Operator": operator}):
            sent = {**headers, "X-Request-ID": f"r-{number}"}
            told = await client.post(f"{path}?{QUERY}", headers=sent, json=body)
            own = {name: value for name, value in told.headers.items() if name.startswith("x-olla")}
            heap.add(f"headers of {path} for {model}", str(own))
            if "x-olla-endpoint" not in told.headers:
                heap.add(f"refusal of {path} for {model}", told.text)
            if headers is not CLIENT:
                assert "x-olla-trace" in told.headers, (path, model, told.text)
    refused = await client.post(
        CHAT, headers={**CLIENT, "X-Olla-Operator": canaries.PASSWORD}, json={"model": "m"}
    )
    assert refused.status_code == 401
    heap.add("refusal of a forged token", refused.text)
    for path in ("/olla/models", "/olla/openai/v1/models", "/olla/proxy/v1/models", "/olla/ollama/api/tags"):
        heap.add(path, (await client.get(f"{path}?{QUERY}", headers=CLIENT)).text)


READ = [
    "/internal/health", "/internal/ready", "/version", "/internal/status", "/internal/status/endpoints",
    "/internal/status/models?detailed=true&group=family", "/internal/stats/models?include_endpoints=true",
    "/internal/stats/models?include_summary=true", "/internal/stats/translators", "/internal/stats/sticky",
    "/internal/process", "/internal/metrics", "/", "/portal/live.json", "/models/", "/requests/", "/rules/",
    "/explain/?path=/olla/openai/v1/chat/completions&model=m", "/fleet/rows/", "/connect/", "/playground/",
    "/admin/", "/admin/endpoints/endpoint/", "/admin/endpoints/alerthook/", "/admin/endpoints/alerthook/1/change/",
    "/admin/proxy/requestlog/", "/admin/proxy/requestlog/export/csv", "/admin/proxy/requestlog/export/jsonl",
    "/admin/proxy/requesthour/", "/admin/endpoints/discoveredmodel/",
]  # fmt: skip


async def read_all(client: httpx.AsyncClient, heap: Heap) -> None:
    """Every page and route that shows something, as an administrator."""
    for path in READ:
        told = await client.get(path)
        # This process may have seen no sign of the prober yet.
        fine = {200, 503} if path == "/internal/ready" else {200}
        assert told.status_code in fine, (path, told.status_code, told.text[:300])
        heap.add(path, told.text)
    question = {"path": f"{CHAT}?{QUERY}", "body": {"model": "broken"}, "headers": CLIENT}
    heap.add("explain by POST", (await client.post("/internal/explain", json=question)).text)
    lines = [("header", f"{name}: {value}") for name, value in CLIENT.items()]
    heap.add(
        "explain by GET",
        (await client.get("/internal/explain", params=[("path", CHAT), ("model", "m"), *lines])).text,
    )
    assert '"routed"' in heap.parts["explain by GET"]
    rows = [json.loads(line) for line in heap.parts["/admin/proxy/requestlog/export/jsonl"].splitlines()]
    assert len(rows) > 2 * len(REQUESTS)
    for row in {row["outcome"] + row["error_code"]: row for row in rows}.values():
        for path in (f"/requests/{row['id']}/", f"/admin/proxy/requestlog/{row['id']}/change/"):
            heap.add(path, (await client.get(path)).text)
    for number in (1, 2, 6, 11):
        heap.add(f"fleet page {number}", (await client.get(f"/fleet/{number}/")).text)


async def test_it_shows_no_secret_anywhere(site: Site) -> None:
    heap = Heap()
    url = site.server.url
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as stranger:
        signed_in = httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=30, cookies={"sessionid": site.cookie}
        )
        async with signed_in as admin:
            page = await admin.get("/playground/")
            csrf = {"X-CSRFToken": admin.cookies["csrftoken"], "Origin": url}
            token = (await admin.post("/operator/token", headers=csrf)).json()["token"]
            heap.add("playground", page.text)
            await make_traffic(stranger, heap, token)
            commands = asyncio.create_task(asyncio.to_thread(run_commands, site))
            for hook in site.hooks:
                await hook.wait_for(partial(was_told_of, hook), 30, "the prober's alert")
            await wait_for_rows(admin)
            await read_all(admin, heap)
    for number, hook in enumerate(site.hooks):
        heap.add(f"webhook {number}", b"\n".join(each.body for each in hook.requests))
    heap.add("commands", await commands)
    assert all(text in heap.parts["commands"] for text in ("Try 1: good", '"sends_path"', "endpoints.alerthook"))
    heap.add("log on standard error", site.server.output())
    heap.add("log file", (site.folder / "olla.log").read_bytes())
    stored = b"".join(each.read_bytes() for each in (site.folder / "data").glob("*.sqlite3*"))
    heap.add("database", stored)
    secrets = [*MINE, site.cookie, token]
    allowed = {  # the table of sessions holds its keys, endpoints their probe URLs, which are no secret fields
        f"database: {site.cookie}", f"database: {PROBE}", f"commands: {PROBE}",
    }  # fmt: skip
    assert [leak for leak in heap.leaks(secrets) if leak not in allowed] == []
    assert len(heap.parts) > 60


def was_told_of(hook: ScriptedBackend) -> bool:
    """Whether a hook was told of an endpoint that the prober found down."""
    return any(b"is down" in each.body for each in hook.requests)


def run_commands(site: Site) -> str:
    """What the commands write that show what there is; blocking."""
    headers = [part for name, value in CLIENT.items() for part in ("--header", f"{name}: {value}")]
    asked = ["explain", f"{CHAT}?{QUERY}", "--model", "m", *headers]
    commands = [asked, [*asked, "--json"], ["dumpdata", "endpoints", "proxy"]]
    return site.run("-c", COMMANDS, json.dumps(commands))


async def wait_for_rows(admin: httpx.AsyncClient) -> None:
    """Until the request log has every row."""
    export = "/admin/proxy/requestlog/export/jsonl"
    async with asyncio.timeout(30):
        while (await admin.get(export)).text.count("\n") <= 2 * len(REQUESTS):
            await asyncio.sleep(0.1)
