"""Nothing secret reaches a log line, whoever wrote it and whoever handles it."""

from __future__ import annotations

import io
import json
import logging
import re
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.redaction import is_secret_name, redact
from endpoints.secrets import Secret
from olla_site.clean_records import install
from olla_site.demo import DemoBackend
from tests import canaries
from tests.canaries import CanaryWatch, find_canary
from tests.e2e.conftest import BackendThread
from tests.e2e.seed import seed_database
from tests.live import LiveServer

S = canaries.BEARER


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"Authorization: Bearer {S}", "Authorization: ***"),
        (f"authorization={S} and more", "authorization=***"),
        (f"Proxy-Authorization: Digest a=\"u\", r=\"{S}\"", "Proxy-Authorization: ***"),
        (f"{{'Authorization': 'Token {S}', 'a': 1}}", "{'Authorization': '***', 'a': 1}"),
        (f"[(b'x-api-key', b'{S}'), (b'a', b'c')]", "[(b'x-api-key', b'***'), (b'a', b'c')]"),
        (f'["authorization","Basic {S}"]', '["authorization","***"]'),
        (f'{{"api_key":"{S}","b":2}}', '{"api_key":"***","b":2}'),
        (f'{{"api_key":"a\\"{S}","b":2}}', '{"api_key":"***","b":2}'),
        (f'"{{\\"api_key\\": \\"{S}\\", \\"b\\": 2}}"', '"{\\"api_key\\": \\"***\\", \\"b\\": 2}"'),
        (f"{{'x-api-key': ['{S}', 'b'], 'c': 1}}", "{'x-api-key': [***], 'c': 1}"),
        (f"GET /?api_key={S}&x=1 200", "GET /?api_key=***&x=1 200"),
        (f"GET /?API-Key={S}&x=1", "GET /?API-Key=***&x=1"),
        (f"/?%61pi%5Fkey={S}&x=1", "/?%61pi%5Fkey=***&x=1"),
        (f"/?%2561pi_key={S}", "/?%2561pi_key=***"),
        (f"/?next=https%3A%2F%2Fh%3Fapi_key%3D{S}%26b%3D1", "/?next=https%3A%2F%2Fh%3Fapi_key%3D***%26b%3D1"),
        (f"/?next=/?token={S}", "/?next=/?token=***"),
        (f"http://user:{S}@host/x", "http://***@host/x"),
        (f"http%3A%2F%2Fu%3A{S}%40h", "http%3A%2F%2F***%40h"),
        (f"Cookie: a=b; sessionid={S}; c=1", "Cookie: ***"),
        (f"Set-Cookie: sessionid={S}; Path=/", "Set-Cookie: ***"),
        (f"a bearer  {S}, then", "a bearer  ***, then"),
        (f"Bearer%20{S}", "Bearer%20***"),
        ("Basic dXNlcjpwYXNz", "Basic ***"),
        ("key sk-abcdefgh1234 used", "key sk-*** used"),
        ("(sk-proj-abc_def)", "(sk-***)"),
        (f"password = '{S}'", "password = '***'"),
        (f'password="a {S} b"', 'password="***"'),
        (f"secret: {S} next", "secret: *** next"),
        (f"X-Olla-Operator: {S}", "X-Olla-Operator: ***"),
        (f"/?x-amz-signature={S}&sig={S}", "/?x-amz-signature=***&sig=***"),
        (f"access_token={S} auth={S} PASSWORD={S}", "access_token=*** auth=*** PASSWORD=***"),
        (f"line\nAuthorization: {S}\nnext", "line\nAuthorization: ***\nnext"),
    ],
)  # fmt: skip
def test_it_masks_secrets(text, clean):
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "0b1c-44: gpu-1 failed: connection refused after 3.1s",
        "max_tokens=100 prompt_tokens: 5",
        "disk-cache-size and risk-averse",
        "basic authentication, bearer token missing",
        "endpoint https://host:443/v1 failed: x@y",
        "a: b: c => d",
        "design=3 config=4",
    ],
)
def test_it_leaves_other_text_alone(text):
    assert redact(text) == text


NAMES = ["api_key", "token", "access_token", "password", "secret", "auth", "key", "sig", "x-api-key", "Api-Key"]


@given(name=st.sampled_from(NAMES), data=st.data())
def test_it_knows_a_name_in_every_spelling(name, data):
    spelled = "".join(
        data.draw(st.sampled_from([char.lower(), char.upper(), f"%{ord(char):02x}", f"%{ord(char):02X}"]))
        for char in name
    )

    assert is_secret_name(spelled)
    assert find_canary(redact(f"/path?a=1&{spelled}={S}&b=2")) is None


@given(st.text(max_size=200))
def test_it_changes_nothing_the_second_time(text):
    once = redact(f"{text} api_key=x")

    assert redact(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "a:" * 40_000 + "key",
        '"a",' * 20_000 + "key",
        "\\" * 80_000 + "key:",
        "https:" * 10_000 + "://key",
        "%3D" * 20_000,
    ],
    ids=["colons", "quotes", "backslashes", "schemes", "escapes"],
)  # fmt: skip
def test_it_takes_long_lines_in_its_stride(text):
    began = time.process_time()
    redact(text)

    assert time.process_time() - began < 3


def test_it_looks_at_a_clean_line_quickly():
    line = "0b1c-44: gpu-1 failed: connection refused (NotConnected) after 3.1s, the next candidate is tried"
    best = min(_seconds_for(line) for _ in range(20))

    assert best < 30e-6  # 1.8 us on the machine it was written on


def _seconds_for(line):
    began = time.process_time()
    for _ in range(200):
        redact(line)
    return (time.process_time() - began) / 200


# -- records


@pytest.fixture
def log():
    """A logger with a handler that was added after everything was set up, and what it wrote."""
    install()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("tests.redaction")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger, stream.getvalue
    logger.removeHandler(handler)


class Keeper(logging.Handler):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


@pytest.fixture
def keeper(log):
    handler = Keeper()
    log[0].addHandler(handler)
    yield handler
    log[0].removeHandler(handler)


def fail(message: str, cause: Exception | None = None) -> None:
    raise RuntimeError(message) from cause


def test_it_cleans_a_secret_that_only_shows_with_its_arguments(log):
    logger, written = log
    logger.info("token=%s for %s", S, "alice")

    assert written() == "INFO token=*** for alice\n"


def test_it_keeps_arguments_where_cleaning_each_is_enough(log, keeper):
    log[0].info('%s "%s"', "10.0.0.1", f"GET /?api_key={S}")

    assert keeper.records[0].args == ("10.0.0.1", "GET /?api_key=***")


def test_it_cleans_tracebacks(log):
    logger, written = log
    try:
        fail(f"Authorization: {S}", ValueError(f"http://user:{S}@host refused"))
    except RuntimeError:
        logger.exception("failed")

    assert find_canary(written()) is None
    assert "ValueError: http://***@host refused" in written()
    assert "Traceback" in written()


def test_it_gives_no_handler_an_exception_with_a_secret_in_it(log, keeper):
    try:
        fail(f"token={S}")
    except RuntimeError:
        log[0].exception("failed")

    assert keeper.records[0].exc_info is None
    assert "RuntimeError: token=***" in keeper.records[0].exc_text


def test_it_keeps_an_exception_without_secrets(log):
    try:
        fail("plain")
    except RuntimeError:
        log[0].exception("failed")

    assert log[1]().count("RuntimeError: plain") == 1


def test_it_does_not_show_arguments_that_do_not_fit(log, capsys):
    logger, written = log
    logger.warning("two %s %s", *[f"token={S}"])

    assert written() == "WARNING two %s %s (its arguments do not fit: TypeError)\n"
    assert find_canary(capsys.readouterr().err) is None


def test_it_shows_a_secret_object_as_stars(log):
    logger, written = log
    logger.info("%s %r %s", Secret(S), Secret(S), {"value": Secret(S)})

    assert written() == "INFO *** *** {'value': ***}\n"


def test_it_is_installed_once():
    install()
    factory = logging.getLogRecordFactory()
    install()

    assert logging.getLogRecordFactory() is factory


# -- the watch over the whole run


def test_it_sees_a_planted_secret():
    watch = CanaryWatch()
    record = logging.LogRecord("some.logger", logging.INFO, "file.py", 7, f"oops {S}", None, None)
    watch.handle(record)

    assert watch.seen == [f"some.logger (file.py:7): oops {S}"]


def test_it_sees_one_in_a_traceback():
    watch = CanaryWatch()
    try:
        fail(S)
    except RuntimeError as error:
        info = (type(error), error, error.__traceback__)
    watch.handle(logging.LogRecord("some.logger", logging.INFO, "file.py", 7, "failed", None, info))

    assert len(watch.seen) == 1


def test_it_watches_this_very_run():
    assert canaries.watch.is_installed()


# -- the real server


@pytest.fixture(scope="module")
def outspoken_server(tmp_path_factory):
    """A server that logs everything, before endpoints with credentials: one that answers, one that refuses."""
    backend = BackendThread(DemoBackend(kind="openai", name="p", models=("m",)))
    backend.start()
    bearer = {
        "auth_type": "bearer",
        "auth_secret": canaries.BEARER,
        "extra_headers": f"X-Team: {canaries.API_KEY}",
    }
    rows = [
        {"name": "up", "url": backend.backend.url, "kind": "openai", "models": ["m"], "columns": bearer},
        {"name": "down", "url": "http://127.0.0.1:9", "kind": "openai", "models": ["n"], "columns": bearer},
    ]
    data_dir = tmp_path_factory.mktemp("data")
    seed_database(data_dir, rows)
    try:
        everything = {"OLLA_LOG_LEVEL": "DEBUG", "OLLA_LOG_FORMAT": "json", "OLLA_ACCESS_LOG": "all"}
        with LiveServer(data_dir=data_dir, env=everything) as server:
            yield server
    finally:
        backend.close()


HEADERS = {
    "Authorization": f"Bearer {canaries.OPENAI_KEY}",
    "X-Api-Key": canaries.API_KEY,
    "Cookie": f"sessionid={canaries.COOKIE}; a=b",
}
OPERATOR = {"X-Olla-Operator": canaries.PASSWORD}
SECRET_QUERY = f"api_key={canaries.QUERY}&%74oken={canaries.QUERY}&Sig={canaries.QUERY}"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/olla/openai/v1/chat/completions", "m"),
        ("/olla/openai/v1/chat/completions", "n"),
        ("/olla/openai/v1/chat/completions", "nobody"),
        ("/olla/openai/v1/chat/completions", "operator"),
        (f"/olla/openai/{canaries.OPENAI_KEY}/x", "m"),
        ("/olla/nobody/v1/x", "m"),
        ("/accounts/login/", "m"),
        ("/nothing/here", "m"),
    ],
)
def test_it_logs_no_secret_of_a_request(outspoken_server, path, model):
    request_id = f"r-{abs(hash((path, model)))}"
    answer = httpx.post(
        f"{outspoken_server.url}{path}?{SECRET_QUERY}",
        headers={**HEADERS, **(OPERATOR if model == "operator" else {}), "X-Request-ID": request_id},
        content=json.dumps({"model": model, "messages": []}),
        trust_env=False,
        timeout=60,
    )

    assert answer.status_code < 600
    deadline = time.monotonic() + 10
    # The request's own line has no query; the access line, written a moment later, has it.
    access = re.compile(rf'.*"request_id":"{request_id}".*api_key=\*\*\*')
    while not access.search(outspoken_server.output()):
        assert time.monotonic() < deadline, "the request was never logged"
        time.sleep(0.02)
    assert find_canary(outspoken_server.output()) is None


def test_it_logs_no_secret_of_a_refused_host(outspoken_server):
    headers = {**HEADERS, "Host": f"user:{canaries.PASSWORD}@evil.example"}
    answer = httpx.get(f"{outspoken_server.url}/?{SECRET_QUERY}", headers=headers, trust_env=False, timeout=60)

    assert answer.status_code == 400
    assert find_canary(outspoken_server.output()) is None
