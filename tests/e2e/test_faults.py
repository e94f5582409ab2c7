"""The real server and prober when backends are killed and the database is locked or destroyed."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Site, wait_until
from tests.e2e.seed import seed_database
from tests.live import ROOT, LiveServer, steady_port

MODEL = "demo-mini:1b"
# A probe that a busy machine delays must put no endpoint out of reach.
PATIENT = {"check_interval": 11.0, "check_timeout": 10.0}


class BackendProcess:
    """`manage.py demo_backend` as a process that can be killed and started again on its port."""

    def __init__(self, name: str, data_dir: Path, *, delay: float = 0.02) -> None:
        self.name = name
        self.port = steady_port()
        self._delay = delay
        self._env = {
            "OLLA_DATA_DIR": str(data_dir),
            "PATH": "/usr/bin:/bin",
            "DJANGO_SETTINGS_MODULE": "olla_site.settings",
        }
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> BackendProcess:
        """Start it and wait until it answers."""
        argv = [sys.executable, "manage.py", "demo_backend", "--type", "openai", "--models", MODEL]
        argv += ["--port", str(self.port), "--delay", str(self._delay), "--name", self.name]
        self.process = subprocess.Popen(argv, cwd=ROOT, env=self._env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "http://127.0.0.1:" in line:
                self.port = int(line.split("http://127.0.0.1:")[1].split("/")[0].split()[0].rstrip("."))
                return self
        raise AssertionError("the demo backend did not start")

    def kill(self) -> None:
        """SIGKILL: no goodbye to anybody."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def fleet(tmp_path: Path, count: int = 2, **options: Any) -> Iterator[tuple[LiveServer, list[BackendProcess]]]:
    """A server with its prober before `count` backends that share one model."""
    data_dir = tmp_path / "data"
    backends = [BackendProcess(f"gpu-{number}", data_dir, **options).start() for number in range(count)]
    rows = [
        {"name": each.name, "url": each.url, "kind": "openai-compatible", "models": [MODEL], "columns": PATIENT}
        for each in backends
    ]
    seed_database(data_dir, rows)
    try:
        # A breaker that broken streams have opened is no matter of these tests.
        with LiveServer(env={"OLLA_BREAKER_OPEN_TIME": "1"}, data_dir=data_dir, args=()) as server:
            wait_until(lambda: _probed(data_dir) == count)
            yield server, backends
    finally:
        for each in backends:
            each.kill()


def query(data_dir: Path, sql: str, *values: Any) -> list[Any]:
    """One statement on the server's database, committed."""
    with closing(sqlite3.connect(data_dir / "olla.sqlite3", timeout=30)) as database, database:
        return database.execute(sql, values).fetchall()


def _probed(data_dir: Path) -> int:
    query(data_dir, "UPDATE endpoints_endpointhealth SET next_check = '2020-01-01' WHERE last_checked IS NULL")
    return len(query(data_dir, "SELECT 1 FROM endpoints_endpointhealth WHERE last_checked IS NOT NULL"))


async def _ask(client: httpx.AsyncClient, seen: dict[str, Any]) -> None:
    """One request; what becomes of it is noted in `seen`."""
    stream = seen["stream"]
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "Tell me a story"}]}
    try:
        async with client.stream("POST", "/olla/openai/v1/chat/completions", json=body) as answer:
            seen["endpoint"] = answer.headers.get("x-olla-endpoint")
            seen["status"] = answer.status_code
            text = b""
            async for chunk in answer.aiter_bytes():
                seen["bytes"] += len(chunk)
                text += chunk
            seen["ok"] = answer.status_code == 200 and (b"[DONE]" in text if stream else bool(json.loads(text)))
    except httpx.HTTPError as error:
        seen["error"] = repr(error)


async def _load(url: str, victim: BackendProcess, count: int) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(
        base_url=url,
        timeout=60,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=False,
    ) as client:
        seen: list[dict[str, Any]] = [
            {"bytes": 0, "endpoint": None, "ok": False, "stream": n % 2 == 0} for n in range(2 * count)
        ]
        running = [asyncio.ensure_future(_ask(client, each)) for each in seen[:count]]
        async with asyncio.timeout(60):
            while sum(1 for each in seen if each["bytes"] and each["endpoint"] == victim.name) < 5:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(victim.kill)
        later = [asyncio.ensure_future(_ask(client, each)) for each in seen[count:]]
        await asyncio.gather(*running, *later)
        return seen


def test_it_loses_no_request_that_had_received_nothing_when_a_backend_is_killed(tmp_path: Path) -> None:
    with fleet(tmp_path) as (server, backends):
        victim = backends[0]
        results = asyncio.run(_load(server.url, victim, 50))
        failed = [each for each in results if not each["ok"]]
        assert all(each["stream"] and each["bytes"] > 0 and each["endpoint"] == victim.name for each in failed), (
            failed
        )
        assert any(each["endpoint"] == victim.name for each in results)

        victim.start()
        asked: list[str] = []

        def answered_by_victim() -> bool:
            asked.append(httpx.post(
                f"{server.url}/olla/openai/v1/embeddings", json={"model": MODEL, "input": "x"},
                trust_env=False, timeout=60,
            ).headers["x-olla-endpoint"])  # fmt: skip
            return asked[-1] == victim.name

        wait_until(lambda: _status(tmp_path, victim.name) == "healthy", 70)
        wait_until(answered_by_victim, 20)  # half a second; who was seen failing is kept out for thirty otherwise


def _status(tmp_path: Path, name: str) -> str:
    sql = """SELECT status FROM endpoints_endpointhealth
             JOIN endpoints_endpoint AS endpoint ON endpoint.id = endpoint_id WHERE endpoint.name = ?"""
    return str(query(tmp_path / "data", sql, name)[0][0])


def _works(url: str) -> bool:
    body = {"model": MODEL, "input": "x"}
    answer = httpx.post(f"{url}/olla/openai/v1/embeddings", json=body, trust_env=False, timeout=60)
    return answer.status_code == 200


def test_it_goes_on_while_the_database_is_locked_and_recovers(tmp_path: Path, long_form: bool) -> None:
    with fleet(tmp_path, count=1) as (server, _):
        with closing(sqlite3.connect(tmp_path / "data/olla.sqlite3", timeout=30)) as locker:
            locker.execute("BEGIN EXCLUSIVE")
            end = time.monotonic() + (30 if long_form else 8)
            while time.monotonic() < end:
                assert _works(server.url)
                time.sleep(0.1)
            wait_until(lambda: "locked" in server.output(), 60)
            locker.rollback()
        wait_until(lambda: _disabled_is_seen(tmp_path, server.url), 60)


def _disabled_is_seen(tmp_path: Path, url: str) -> bool:
    query(tmp_path / "data", "UPDATE endpoints_endpoint SET state = 'disabled'")
    query(tmp_path / "data", "UPDATE endpoints_revision SET number = number + 1")
    return not _works(url)


def test_it_goes_on_while_the_database_is_garbage_and_recovers(tmp_path: Path) -> None:
    with fleet(tmp_path, count=1) as (server, _):
        path = tmp_path / "data/olla.sqlite3"
        copy = tmp_path / "copy.sqlite3"
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        garbage = tmp_path / "garbage"
        garbage.write_bytes(b"\x00garbage" * 4096)
        garbage.replace(path)
        wait_until(lambda: "the database cannot be read" in server.output(), 60)
        for _ in range(20):
            assert _works(server.url)
        for leftover in ("-wal", "-shm"):
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        copy.replace(path)
        wait_until(lambda: "the database can be read again" in server.output(), 60)
        assert _works(server.url)
        wait_until(lambda: _disabled_is_seen(tmp_path, server.url), 60)
        assert server.process is not None
        assert server.process.poll() is None
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_it_refuses_foreign_hosts_at_both_doors(site: Site, host: str) -> None:
    for path in ("/olla/models", "/admin/login/", "/internal/health"):
        answer = httpx.get(site.url + path, headers={"Host": host}, trust_env=False, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) in {
            (400, "invalid_host"), (400, "invalid_request"),
        }  # fmt: skip
        assert answer.headers["x-olla-request-id"]
