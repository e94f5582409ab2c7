"""Logs: one line for each request, readable or JSON, whole and without secrets, in files that stay bounded."""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured

from endpoints.conf import Conf
from olla_site import request_lines
from olla_site.log_file import SharedRotatingFile
from olla_site.log_lines import JsonFormatter, TextFormatter
from olla_site.request_lines import build_line, render_json, render_text
from olla_site.settings import env_choice, env_number
from olla_site.startup_facts import Facts, find_unsafe, read_facts
from proxy import finished
from proxy.finished import unsubscribe
from proxy.record import AttemptNote, RequestRecord, Usage
from proxy.request_id import current_request
from tests.canaries import OPENAI_KEY, QUERY
from tests.fakes import ScriptedBackend, json_reply
from tests.live import LiveServer
from tests.proxy.builders import make_endpoint

CHAT = "/olla/openai/v1/chat/completions"


def make_record(**changes) -> RequestRecord:
    record = RequestRecord(
        "r1", 1_750_000_000.0, 10.0, "POST", "/olla/openai/v1/chat/completions", "openai", "10.0.0.9"
    )
    record.status = record.answer_status = 200
    for name, value in changes.items():
        setattr(record, name, value)
    record.finish(10.25, client_left=changes.get("status", 200) is None)
    return record


def read_line(record: RequestRecord) -> dict[str, Any]:
    """The fields of a record's line."""
    return json.loads(render_json(build_line(record)))


class TestLine:
    def test_it_tells_who_asked_what_and_who_answered(self):
        tried, answered = (
            AttemptNote(make_endpoint("dead"), 10.0, error="refused"),
            AttemptNote(make_endpoint("gpu"), 10.1),
        )
        record = make_record(
            model="Fast", sent_model="llama3:8b", attempts=[tried, answered], answered=answered, stream=True,
            first_byte=0.05, request_bytes=10, response_bytes=20, queue_wait=0.002,
        )  # fmt: skip
        line = read_line(record)
        assert (line["level"], line["message"], line["status"]) == ("INFO", "request completed", 200)
        assert (line["endpoint"], line["model"], line["provider_model"]) == ("gpu", "Fast", "llama3:8b")
        assert (line["attempts"], line["failed_attempts"]) == (2, ["dead: refused"])
        assert (line["duration_ms"], line["ttft_ms"], line["queue_wait_ms"]) == (250.0, 50.0, 2.0)

    def test_its_text_tells_the_same_as_its_json(self):
        tried, answered = (
            AttemptNote(make_endpoint("dead"), 10.0, error="refused"),
            AttemptNote(make_endpoint("gpu"), 10.1),
        )
        record = make_record(
            model="Fast", sent_model="llama3:8b", attempts=[tried, answered], answered=answered, stream=True,
            first_byte=0.05, request_bytes=10, response_bytes=20, queue_wait=0.002, mode="translation",
            sticky="hit", client_key="team",
        )  # fmt: skip
        record.note_usage(7, 9, 16, 3.5)
        head, _, named = render_text(build_line(record)).partition(" request_id=")
        fields = {"request_id", *re.findall(r" (\w+)=", named)}
        shown = {"time", "level", "logger", "message", "method", "path", "status", "duration_ms"}
        assert fields | shown == read_line(record).keys()
        assert head == (
            "2025-06-15T15:06:40.250Z INFO    proxy.requests: request completed: "
            "POST /olla/openai/v1/chat/completions 200 250ms"
        )

    @pytest.mark.parametrize(("changes", "level", "message"), [
        ({}, "INFO", "request completed"),
        ({"status": None, "answer_status": None}, "INFO", "client left"),
        ({"status": 404, "answer_status": 404}, "WARNING", "request rejected"),
        ({"status": 503, "answer_status": 503}, "ERROR", "request failed"),
    ])  # fmt: skip
    def test_its_level_says_how_it_went(self, changes, level, message):
        line = read_line(make_record(**changes))
        assert (line["level"], line["message"]) == (level, message)

    def test_it_shows_no_secret_a_client_puts_where_none_belongs(self):
        record = make_record(path=f"/olla/openai/v1/x?token={QUERY}", model=OPENAI_KEY, request_id=OPENAI_KEY)
        line = build_line(record)
        for text in (render_text(line), render_json(line)):
            assert QUERY not in text
            assert OPENAI_KEY not in text

    def test_a_client_cannot_forge_a_field_or_a_line(self):
        text = render_text(build_line(make_record(model='m" endpoint=mine\nINFO: all is well', path="/a b\n=c")))
        assert "\n" not in text
        assert ' model="m\\" endpoint=mine\\nINFO: all is well"' in text

    def test_it_takes_names_that_are_no_unicode(self):
        record = make_record(model="\udcff", path="/\udcff")
        assert "?" in read_line(record)["model"]

    def test_it_is_written_whatever_is_odd_about_another(self, caplog):
        caplog.set_level(logging.INFO, "proxy.requests")
        absurd = make_record(usage=Usage(1, 10**400), stream=True, first_byte=0.1)
        request_lines.note([make_record(), absurd, make_record()])
        told = [each for each in caplog.records if each.name == "proxy.requests"]
        assert sum(each.getMessage().count("request completed") for each in told) == 2
        assert "the line of request r1 cannot be written" in caplog.text


class TestFormatters:
    def record(self, message="hello", **extra):
        made = logging.LogRecord("proxy.x", logging.WARNING, __file__, 1, message, None, None)
        made.created = 1_750_000_000.5
        for name, value in extra.items():
            setattr(made, name, value)
        return made

    def test_text_names_the_request(self):
        line = TextFormatter().format(self.record("hello\nworld", request_id="r9"))
        assert line == "2025-06-15T15:06:40.500Z WARNING proxy.x: hello [r9]\nworld"

    def test_text_names_it_once(self):
        assert TextFormatter().format(self.record("r9 failed", request_id="r9")).count("r9") == 1

    def test_json_keeps_everything_on_one_line(self):
        record = self.record("a\nb", request_id="r9")
        record.exc_info = (ValueError, ValueError("broken\nhere"), None)
        text = JsonFormatter().format(record)
        fields = json.loads(text)
        assert "\n" not in text
        assert (fields["level"], fields["logger"], fields["message"], fields["request_id"]) == (
            "WARNING", "proxy.x", "a\nb", "r9",
        )  # fmt: skip
        assert "ValueError: broken\nhere" in fields["traceback"]

    def test_records_carry_the_request_they_belong_to(self, caplog):
        token = current_request.set("r77")
        try:
            logging.getLogger("proxy.test").warning("something")
        finally:
            current_request.reset(token)
        assert caplog.records[-1].request_id == "r77"


@pytest.fixture
def lines(caplog):
    """Request lines, as the door's requests write them."""
    caplog.set_level(logging.INFO, "proxy.requests")
    request_lines.start()

    def read() -> list[logging.LogRecord]:
        finished.flush()
        return [each for each in caplog.records if each.name == "proxy.requests"]

    yield read
    unsubscribe(request_lines.note)
    finished.flush()


class TestFile:
    def handler(self, path, size=2000, count=3):
        return SharedRotatingFile(str(path), size, count)

    def write(self, handler, text):
        handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, text, None, None))

    def test_it_keeps_every_line_whole_when_two_write_and_rotate(self, tmp_path):
        path = tmp_path / "logs" / "olla.log"
        handlers = [self.handler(path, 4000, 50) for _ in range(2)]

        def fill(number):
            for line in range(300):
                self.write(handlers[number], f"writer {number} line {line:03d}")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fill, range(2)))
        for handler in handlers:
            handler.close()
        files = [each for each in path.parent.iterdir() if not each.name.endswith(".lock")]
        found = Counter(line for each in files for line in each.read_text().splitlines())
        assert found == Counter(f"writer {n} line {line:03d}" for n in range(2) for line in range(300))
        assert len(files) > 2
        assert all(each.stat().st_mode & 0o077 == 0 for each in files)

    def test_it_stays_within_its_size_and_count(self, tmp_path):
        path = tmp_path / "olla.log"
        handler = self.handler(path)
        for number in range(500):
            self.write(handler, f"{number:040d}")
        handler.close()
        files = [each for each in tmp_path.iterdir() if not each.name.endswith(".lock")]
        assert len(files) == 4
        assert sum(each.stat().st_size for each in files) <= 4 * 2000

    def test_it_goes_on_after_its_file_was_moved_away(self, tmp_path):
        path = tmp_path / "olla.log"
        handler = self.handler(path)
        self.write(handler, "before")
        path.rename(tmp_path / "kept")
        self.write(handler, "after")
        handler.close()
        assert path.read_text() == "after\n"

    def test_it_says_once_that_it_cannot_write(self, tmp_path, capsys):
        (tmp_path / "logs").write_text("a file where a folder should be")
        handler = self.handler(tmp_path / "logs" / "olla.log")
        for _ in range(3):
            self.write(handler, "lost")
        assert capsys.readouterr().err.count("cannot be written") == 1


class TestSettings:
    def test_it_refuses_a_format_there_is_none_of(self, monkeypatch):
        monkeypatch.setenv("OLLA_LOG_FORMAT", "xml")
        with pytest.raises(ImproperlyConfigured, match="OLLA_LOG_FORMAT is 'xml': use one of text, json"):
            env_choice("OLLA_LOG_FORMAT", "text", ("text", "json"))

    @pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", "\u0663"])
    def test_it_refuses_a_size_that_is_no_number(self, monkeypatch, text):
        monkeypatch.setenv("OLLA_LOG_FILE_SIZE", text)
        with pytest.raises(ImproperlyConfigured, match="OLLA_LOG_FILE_SIZE"):
            env_number("OLLA_LOG_FILE_SIZE", 1)


class TestBanner:
    def test_it_names_what_is_unsafe(self):
        risky = Conf(
            open_guarded_paths=("*",),
            allow_scripts=True,
            internal_access="everyone",
            trusted_proxies=("0.0.0.0/0",),
        )
        found = find_unsafe(risky, debug=True, unverified=["gpu-1"])
        assert [each.partition("=")[0].partition(" ")[0] for each in found] == [
            "OLLA_DEBUG", "OLLA_OPEN_GUARDED_PATHS", "OLLA_ALLOW_SCRIPTS", "OLLA_INTERNAL_ACCESS",
            "OLLA_TRUSTED_PROXIES", "TLS",
        ]  # fmt: skip

    def test_it_finds_nothing_unsafe_in_the_defaults(self):
        assert find_unsafe(Conf(), debug=False, unverified=[]) == []

    def test_its_lines_name_database_prober_and_endpoints(self):
        facts = Facts("SQLite, /data/olla.sqlite3", "starts beside the server", "3 configured", ("x",))
        assert facts.lines() == [
            "Database: SQLite, /data/olla.sqlite3", "Prober: starts beside the server", "Endpoints: 3 configured",
            "UNSAFE: x",
        ]  # fmt: skip

    @pytest.mark.django_db(transaction=True)
    def test_it_counts_the_endpoints(self):
        assert read_facts(prober=True).endpoints.startswith("none yet")


def wait_for_lines(server: LiveServer, wanted: int, within: float = 30) -> list[dict[str, object]]:
    """The JSON lines a server wrote, once there are as many."""
    deadline = time.monotonic() + within
    while True:
        found = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
        if len(found) >= wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_it_writes_one_json_line_for_each_request_and_the_same_into_the_file(tmp_path):
    path = tmp_path / "olla.log"
    with LiveServer(env={"OLLA_LOG_FORMAT": "json", "OLLA_LOG_FILE": str(path)}) as server:
        for number, (method, target) in enumerate([
            ("POST", "/olla/openai/v1/chat/completions"), ("GET", "/olla/models"), ("GET", "/accounts/login/"),
            ("POST", "/olla/nonsense/x"), ("GET", "/olla/openai/v1/models"),
        ]):  # fmt: skip
            httpx.request(
                method, server.url + target, headers={"X-Request-ID": f"id-{number}"}, json={"model": "m"},
                trust_env=False, timeout=60,
            )  # fmt: skip
        lines = wait_for_lines(server, 5)
        deadline = time.monotonic() + 15
        while path.read_text().count("\n") < 5 and time.monotonic() < deadline:  # it comes after the console
            time.sleep(0.05)
        text = path.read_text()
    assert Counter(each.get("request_id") for each in lines) == {f"id-{number}": 1 for number in range(5)}
    by_id = {each["request_id"]: each for each in lines}
    assert (by_id["id-0"]["logger"], by_id["id-0"]["error_code"]) == ("proxy.requests", "no_endpoints")
    assert "logger" not in by_id["id-1"]  # the access log's
    assert set(server_lines(text)) == {json.dumps(each, sort_keys=True) for each in lines}


def server_lines(text: str) -> list[str]:
    return [json.dumps(json.loads(line), sort_keys=True) for line in text.splitlines()]


def test_it_writes_readable_lines_by_default_and_both_kinds_when_asked():
    with LiveServer(env={"OLLA_ACCESS_LOG": "all"}) as server:
        httpx.post(
            f"{server.url}/olla/openai/v1/embeddings", headers={"X-Request-ID": "mine"}, json={"model": "m"},
            trust_env=False, timeout=60,
        )  # fmt: skip
        deadline = time.monotonic() + 15
        while server.output().count("mine") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        output = server.output()
    assert "WARNING proxy.requests: request rejected: POST /olla/openai/v1/embeddings 404" in output
    assert "INFO    olla_site.access: POST /olla/openai/v1/embeddings 404" in output
    assert "Database: SQLite" in output
    assert "Prober: none from here" in output
    assert "Endpoints: none yet" in output


async def test_it_writes_a_line_at_the_end_of_a_forwarded_request(proxy, lines):
    async with ScriptedBackend(json_reply({"ok": 1})) as backend:
        await proxy.add(backend.url, "one")
        await proxy.chat()
        await proxy.call("GET", "/olla/models")
    [line] = lines()
    assert "request completed: POST /olla/openai/v1/chat/completions 200" in line.getMessage()
    assert "endpoint=one" in line.getMessage()
    assert line.levelno == logging.INFO


def test_the_log_pages_name_every_field():
    page = (Path(__file__).parent.parent.parent / "docs" / "observability.md").read_text()
    missing = [
        name
        for part in (request_lines.OwnFields, request_lines.Numbers, request_lines.SharedFields)
        for name in part.__struct_fields__
        if f"`{name}`" not in page
    ]
    assert missing == []
