"""The probe loop in this process, and the command as a process of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from django.db import connection

from endpoints.asking import ProbeTarget
from endpoints.durations import DISCOVERY, PROBE, READ
from endpoints.health import HealthState, Outcome
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth
from endpoints.prober import Prober, plan_discovery, safe_discovery, safe_probe
from endpoints.recording import Job
from tests.fakes import Reply, ScriptedBackend, Silence, Step, json_reply
from tests.live import ROOT, steady_port

T = TypeVar("T")
DEADLINE = 60.0


def listing(*names: str) -> Reply:
    return json_reply({"data": [{"id": name} for name in names]})


def vllm(*names: str) -> dict[str, Reply]:
    return {"/health": Reply(200), "/v1/models": listing(*names)}


# -- the loop in this process


@asynccontextmanager
async def probing() -> AsyncIterator[Prober]:
    """A prober at work."""
    prober, stop = Prober(), asyncio.Event()
    task = asyncio.ensure_future(prober.run(stop))
    try:
        yield prober
    finally:
        stop.set()
        await task


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    def work() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            connection.close()

    return await asyncio.to_thread(work)


async def eventually(function: Callable[[], Any], within: float = DEADLINE) -> Any:
    """The first true value of a question to the tables."""
    async with asyncio.timeout(within):
        while not (value := await in_thread(function)):
            await asyncio.sleep(0.02)
        return value


async def make(url: str, name: str = "a", **values: Any) -> Endpoint:
    values = {"backend_type": "vllm", "check_interval": 1.0, **values}
    return await in_thread(lambda: Endpoint.objects.create(name=name, url=url, **values))


def status_of(name: str = "a") -> str:
    return EndpointHealth.objects.filter(endpoint__name=name).values_list("status", flat=True).first() or ""


def names() -> set[str]:
    return set(DiscoveredModel.objects.values_list("name", flat=True))


loop_test = pytest.mark.django_db(transaction=True)


@loop_test
async def test_it_probes_and_discovers_a_new_endpoint_soon_after_saving():
    async with ScriptedBackend(vllm("m")) as backend, probing() as prober:
        await asyncio.sleep(0.1)
        await make(backend.url)
        # About one second when nothing else runs; by its plan alone it would be five minutes.
        await eventually(lambda: names() == {"m"} and status_of() == "healthy")
        counted = {what: {*prober._durations.of(what)} for what in (PROBE, DISCOVERY)}
        assert counted == {PROBE: {"answered"}, DISCOVERY: {READ}}
        assert prober._durations.of(DISCOVERY)[READ].count == 1


@loop_test
async def test_it_reads_the_models_of_an_edited_endpoint():
    async with ScriptedBackend(vllm("old")) as first, ScriptedBackend(vllm("new")) as second, probing():
        endpoint = await make(first.url, check_interval=300.0)
        await eventually(lambda: names() == {"old"})
        endpoint.url = second.url
        await in_thread(endpoint.save)
        await eventually(lambda: names() == {"new"})


@loop_test
async def test_it_drops_the_answer_of_an_address_edited_during_the_probe():
    answer = asyncio.Event()
    late = {"/health": Reply(500, before=answer), "*": listing()}
    async with ScriptedBackend(late) as first, ScriptedBackend(vllm("m")) as second, probing():
        endpoint = await make(first.url, check_timeout=30.0, check_interval=300.0)
        await first.wait_requests(1, within=DEADLINE)
        endpoint.url = second.url
        await in_thread(endpoint.save)
        answer.set()
        await eventually(lambda: status_of() == "healthy")
        assert await in_thread(lambda: EndpointHealth.objects.get().consecutive_failures) == 0


@loop_test
async def test_it_is_not_held_up_by_a_slow_endpoint():
    async with ScriptedBackend(Silence()) as slow, ScriptedBackend(vllm("m")) as quick, probing():
        await make(slow.url, "slow", check_timeout=30.0)
        await slow.wait_requests(1, within=DEADLINE)
        await make(quick.url, "quick")
        await quick.wait_requests(4, within=DEADLINE)
        assert len(slow.requests) == 1  # and never two probes of one endpoint at a time


@loop_test
async def test_it_notices_death_and_recovery_and_reads_the_models_again():
    async with probing():
        port = steady_port()
        async with ScriptedBackend(vllm("before"), port=port) as backend:
            await make(backend.url)
            await eventually(lambda: names() == {"before"})
        await eventually(lambda: status_of() == "offline")
        assert await in_thread(names) == {"before"}
        async with ScriptedBackend(vllm("after"), port=port):
            await eventually(lambda: names() == {"after"} and status_of() == "healthy")


@loop_test
async def test_it_tries_a_failed_discovery_again(settings):
    settings.OLLA_DISCOVERY_INTERVAL = 5
    script: dict[str, Step | Sequence[Step]] = {"/health": Reply(200), "/v1/models": [Reply(500), listing("m")]}
    async with ScriptedBackend(script) as backend, probing():
        await make(backend.url)
        await eventually(lambda: EndpointHealth.objects.filter(models_error__contains="HTTP 500").exists())
        assert await in_thread(status_of) == "healthy"
        await eventually(lambda: names() == {"m"})


@loop_test
async def test_it_does_not_probe_disabled_endpoints():
    async with ScriptedBackend(vllm("m")) as disabled, ScriptedBackend(vllm("m")) as other, probing():
        await make(disabled.url, "disabled", state="disabled")
        await make(other.url, "other")
        await other.wait_requests(3, within=DEADLINE)
    assert not disabled.requests


@loop_test
async def test_it_survives_a_locked_database(caplog, monkeypatch):
    path = connection.settings_dict["NAME"]
    async with ScriptedBackend(vllm("m")) as backend, probing():
        await make(backend.url)
        await eventually(lambda: names() == {"m"})
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)  # not sooner: `make` waits too
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            async with asyncio.timeout(DEADLINE):
                while "cannot be used" not in caplog.text:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(2.5)  # several cycles fail
            holder.execute("ROLLBACK")
        seen = len(backend.requests)
        await backend.wait_requests(seen + 1, within=DEADLINE)
        await eventually(lambda: "can be used again" in caplog.text)
    assert caplog.text.count("cannot be used") == 1


@loop_test
async def test_it_leaves_no_task_and_no_connection_behind():
    before = len(asyncio.all_tasks())
    async with ScriptedBackend(Silence()) as backend:
        async with probing():
            await make(backend.url, check_timeout=30.0)
            await backend.wait_requests(1, within=DEADLINE)
        await backend.wait_all_closed()
    assert len(asyncio.all_tasks()) == before


async def test_it_blames_itself_for_its_own_faults(caplog):
    """One endpoint whose probe goes wrong in our own code stops nothing and changes no status."""
    target = ProbeTarget(name="a", url="http://127.0.0.1:1", backend_type="vllm")
    moment = datetime.now(UTC)
    job = Job(1, target, HealthState(), 1.0, False, 0, moment, None, "", moment)
    broken: Any = object()
    assert (await safe_probe(job, broken, 0.0)).outcome is Outcome.FAULT
    assert "itself failed" in str(await safe_discovery(job, broken))
    assert len(caplog.records) == 2


def test_it_spreads_discoveries_and_hurries_after_failures(settings):
    settings.OLLA_DISCOVERY_INTERVAL = 300
    waits = {plan_discovery(0) for _ in range(50)}
    assert len(waits) > 40
    assert all(270 <= wait <= 330 for wait in waits)
    assert [plan_discovery(failures) for failures in (1, 2, 3, 4, 9)] == [10, 20, 40, 60, 60]
    settings.OLLA_DISCOVERY_INTERVAL = 15
    assert [plan_discovery(failures) for failures in (1, 2, 9)] == [10, 15, 15]


# -- the command


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with tables and one endpoint, made once and copied by each test."""
    folder = tmp_path_factory.mktemp("template") / "data"
    code = "from endpoints.models import Endpoint; Endpoint.objects.create(name='e', url='http://127.0.0.1:9', "
    manage(folder, "migrate", "-v0")
    manage(folder, "shell", "-v0", "-c", code + "backend_type='vllm', check_interval=1)")
    return folder


@pytest.fixture
def data(template, tmp_path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "data"))


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OLLA_")}
    return {**kept, "DJANGO_SETTINGS_MODULE": "olla_site.settings", "OLLA_DATA_DIR": str(folder)}


def manage(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "manage.py", *args]
    return subprocess.run(
        argv, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=60, check=True
    )


def set_url(folder: Path, url: str) -> None:
    with closing(sqlite3.connect(folder / "olla.sqlite3", timeout=10)) as database, database:
        database.execute("UPDATE endpoints_endpoint SET url = ?", [url])


def query(folder: Path, sql: str) -> Any:
    """The first row, or None; also while there is no table."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/olla.sqlite3?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(sql).fetchone()
    except sqlite3.Error:
        return None


def wait(function: Callable[[], Any], within: float = DEADLINE) -> Any:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if value := function():
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")


@contextmanager
def prober(folder: Path, *args: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running."""
    argv = [sys.executable, "manage.py", "probe_endpoints", *args]
    with (folder.parent / "log").open("ab") as log:
        process = subprocess.Popen(argv, cwd=ROOT, env=environment(folder), stdout=log, stderr=log, **more)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def holder_pid(folder: Path) -> int:
    """The process that holds the lease now; 0 when nobody does."""
    row = query(
        folder, "SELECT holder FROM endpoints_proberlease WHERE expires_at > strftime('%Y-%m-%d %H:%M:%f')"
    )
    return int(row[0].split(":")[1]) if row else 0


def log_of(folder: Path) -> str:
    return (folder.parent / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_when_told(data, number):
    with prober(data) as process:
        wait(lambda: holder_pid(data) == process.pid)
        process.send_signal(number)
        assert process.wait(DEADLINE) == 0  # two seconds when nothing else runs
    assert holder_pid(data) == 0
    assert "Traceback" not in log_of(data)


def test_it_stops_while_the_database_is_locked(data):
    with prober(data) as process:
        wait(lambda: holder_pid(data) == process.pid)
        with closing(sqlite3.connect(data / "olla.sqlite3", isolation_level=None, timeout=10)) as locker:
            locker.execute("BEGIN EXCLUSIVE")
            time.sleep(1.5)  # longer than a cycle: it now waits for the lock, for up to five seconds
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
    assert "Traceback" not in log_of(data)


def test_it_ends_with_its_parent_even_after_sigkill(data):
    code = (
        "import os, subprocess, sys, time\n"
        "reading, _ = os.pipe()\n"
        "argv = [sys.executable, 'manage.py', 'probe_endpoints', '--parent-pipe', str(reading)]\n"
        "print(subprocess.Popen(argv, pass_fds=[reading]).pid, flush=True)\n"
        "time.sleep(120)\n"
    )
    with (data.parent / "log").open("ab") as log:
        parent = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=environment(data), stdout=subprocess.PIPE, stderr=log
        )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        try:
            wait(lambda: holder_pid(data) == child)
            parent.kill()
            parent.wait()
            wait(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child))
        finally:
            parent.kill()
            parent.wait()
    assert holder_pid(data) == 0


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_it_hands_over_when_the_active_prober_is_killed(data):
    with prober(data) as first:
        wait(lambda: holder_pid(data) == first.pid)
        with prober(data) as second:
            wait(lambda: "this one waits" in log_of(data))
            assert holder_pid(data) == first.pid
            first.kill()
            wait(lambda: holder_pid(data) == second.pid)


async def test_it_recovers_when_the_database_file_is_replaced(data):
    path = data / "olla.sqlite3"
    async with ScriptedBackend(vllm("m")) as backend:
        set_url(data, backend.url)
        with prober(data) as process:
            await asyncio.to_thread(wait, lambda: query(data, "SELECT 1 FROM endpoints_discoveredmodel"))
            good = data / "good"
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(good)) as copy:
                source.backup(copy)
            garbage = data / "garbage"
            garbage.write_bytes(b"this is no database " * 1000)
            garbage.replace(path)
            await asyncio.to_thread(wait, lambda: "cannot be used" in log_of(data))
            for leftover in data.glob("olla.sqlite3-*"):
                leftover.unlink(missing_ok=True)
            good.replace(path)
            await asyncio.to_thread(wait, lambda: "can be used again" in log_of(data))
            seen = len(backend.requests)
            await backend.wait_requests(seen + 2)
            assert process.poll() is None
    assert "Traceback" not in log_of(data)


async def test_it_asks_once_and_prints_a_table(data):
    async with ScriptedBackend(vllm("m", "n")) as backend:
        set_url(data, backend.url)
        done = await asyncio.to_thread(manage, data, "probe_endpoints", "--once")
    head, line = done.stdout.splitlines()
    assert head.split() == ["ENDPOINT", "STATUS", "LATENCY", "MODELS", "REASON"]
    assert line.split()[:2] == ["e", "healthy"]
    assert line.split()[4] == "2"
    assert "Another prober" not in done.stderr


def test_it_says_why_an_endpoint_is_down_and_that_another_prober_is_active(data):
    with closing(sqlite3.connect(data / "olla.sqlite3")) as database, database:
        database.execute(
            "INSERT INTO endpoints_proberlease (id, holder, renewed_at, expires_at, durations)"
            " VALUES (1, 'other', '2020-01-01', '2999-01-01', '{}')"
        )
    done = manage(data, "probe_endpoints", "--once")
    assert "offline" in done.stdout
    assert "port 9" in done.stdout
    assert "Another prober is active" in done.stderr


def test_it_fails_when_the_database_fails(data):
    (data / "olla.sqlite3").write_bytes(b"this is no database " * 1000)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        manage(data, "probe_endpoints", "--once")
    assert caught.value.returncode == 1
    assert "database cannot be used" in caught.value.stderr
