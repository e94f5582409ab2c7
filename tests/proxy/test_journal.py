"""The request log: rows of what happened, written beside the requests and never in their way."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection

from proxy.finished import subscribe, unsubscribe
from proxy.journal import Journal, Keys, journal_state, start_journal, stop_journal, write_rows
from proxy.log_rows import COLUMNS, RowBuilder, UTCText, moment_of
from proxy.models import KEY_SHIFT, RequestLog
from proxy.record import AttemptNote, Outcome, Usage
from tests.canaries import API_KEY, BEARER, COOKIE, OPENAI_KEY, QUERY, find_canary
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.conftest import Proxy
from tests.proxy.log_builders import CPU, GPU, START, fill, make_record

CHAT = "/olla/openai/v1/chat/completions"


@pytest.fixture
async def journal(transactional_db: None) -> AsyncIterator[Journal]:
    """A journal that notes what the test's door finishes."""
    one = Journal(1000)
    subscribe(one.note)
    yield one
    unsubscribe(one.note)
    await one.flush(0.1)


async def rows() -> list[RequestLog]:
    """The log, oldest first."""
    return await sync_to_async(lambda: list(RequestLog.objects.order_by("id")))()


async def test_it_writes_a_row_of_each_request(proxy: Proxy, journal: Journal) -> None:
    began = time.time()
    async with ScriptedBackend([json_reply({"ok": 1}), json_reply({}, status=500)]) as backend:
        endpoint = await proxy.add(backend.url, name="gpu")
        headers = [("X-Request-ID", "first"), ("Authorization", f"Bearer {BEARER}")]
        answer = await proxy.call("POST", CHAT, {"model": "m", "stream": True}, headers)
        await proxy.chat()
        await proxy.chat(model="none")
    assert await journal.write_batch()
    assert (journal.written, journal.pending, journal.dropped) == (3, 0, 0)
    good, bad, refused = await rows()
    assert (good.request_id, good.client, good.peer, good.method, good.path) == (
        "first", "10.1.2.3", "10.1.2.3", "POST", CHAT,
    )  # fmt: skip
    assert (good.provider, good.model, good.sent_model, good.stream) == ("openai", "m", "m", True)
    assert (good.endpoint_id, good.endpoint, good.backend_type) == (endpoint.pk, "gpu", "openai-compatible")
    assert (good.status, good.outcome, good.error_code, good.attempts) == (200, "success", "", 1)
    assert (good.request_bytes, good.response_bytes) == (30, len(answer.body))
    assert good.first_byte_ms is not None
    assert 0 < good.first_byte_ms <= good.total_ms
    assert began - 0.001 <= good.time.timestamp() <= good.ended.timestamp() + 0.002
    assert json.loads(good.trace)["candidates"] == [["gpu"]]
    assert json.loads(good.attempt_notes)[0]["verdict"] == "good"
    assert (bad.status, bad.outcome) == (500, "backend_error")
    assert (refused.error_code, refused.outcome, refused.endpoint_id, refused.attempts) == (
        "model_not_found", "rejected", None, 0,
    )  # fmt: skip


async def test_it_holds_no_secret_a_client_sent(proxy: Proxy, journal: Journal) -> None:
    secrets = [("Authorization", f"Bearer {BEARER}"), ("X-Api-Key", API_KEY), ("Cookie", f"a={COOKIE}")]
    async with ScriptedBackend(json_reply({})) as backend:
        await proxy.add(backend.url, auth_type="bearer", auth_secret=BEARER)
        for path in (CHAT, "/olla/openai/v1/nothing", "/olla/nobody/v1"):
            await proxy.open(
                "POST", path, {"model": "m", "k": BEARER}, secrets, f"api_key={QUERY}".encode()
            ).done()
        # Where no key belongs.
        misplaced = [("X-Request-ID", OPENAI_KEY)]
        await proxy.call("POST", f"/olla/openai/v1/token={QUERY}", {"model": OPENAI_KEY}, misplaced)
    await journal.write_batch()
    everything = repr(await sync_to_async(lambda: list(RequestLog.objects.values_list()))())
    assert journal.written == 4
    assert find_canary(everything) is None


async def test_it_drops_and_counts_what_does_not_fit(
    transactional_db: None, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(10)
    for _ in range(25):
        journal.note([make_record()])
    assert (journal.pending, journal.dropped) == (10, 15)
    await journal.flush()
    assert (journal.written, journal.dropped) == (10, 15)
    assert "the request log lacks 15 more requests" in caplog.text


async def test_it_goes_on_when_the_database_is_locked_and_recovers_by_itself(
    proxy: Proxy, journal: Journal, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.3)
    blocker = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    async with ScriptedBackend(json_reply({})) as backend:
        await proxy.add(backend.url)
        blocker.execute("BEGIN IMMEDIATE")
        try:
            writing = asyncio.get_running_loop().create_task(journal.write_batch())
            journal.capacity = 3
            answers = [await proxy.chat() for _ in range(5)]
            assert {answer.status for answer in answers} == {200}
            await writing
            async with asyncio.timeout(20):
                assert not await journal.write_batch()
            state = journal.state()
            assert (state.pending, state.dropped, state.written) == (3, 2, 0)
            assert state.failing_since is not None
            assert "locked" in state.error
        finally:
            blocker.execute("ROLLBACK")
            blocker.close()
        assert await journal.write_batch()
    state = journal.state()
    assert (state.pending, state.dropped, state.written, state.failing_since) == (0, 2, 3, None)
    assert "the request log is written again" in caplog.text


async def test_it_goes_on_when_the_disk_is_full(journal: Journal) -> None:
    def limit(pages: int) -> None:
        connection.cursor().execute(f"PRAGMA max_page_count = {pages}")

    # The page limit belongs to a connection, so this batch is written in one that has it.
    def write_full() -> None:
        connection.cursor().execute("VACUUM")  # pages that other tests left free would take the rows
        used = connection.cursor().execute("PRAGMA page_count").fetchone()[0]
        limit(used)
        big = [make_record(path="/x" * 500) for _ in range(2000)]
        with pytest.raises(OperationalError, match="full"):
            write_rows(big, Keys())
        limit(1_000_000_000)
        assert write_rows(big[:5], Keys()) == 5

    await sync_to_async(write_full)()
    assert len(await rows()) == 5


async def test_it_writes_the_rest_when_one_request_cannot_be_written(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    good = [make_record(request_id=f"g{number}") for number in range(3)]
    written = await sync_to_async(lambda: write_rows([good[0], good[1], _spoilt(), good[2]], Keys()))()
    assert written == 3
    assert [row.request_id for row in await rows()] == ["g0", "g1", "g2"]
    assert "cannot be logged" in caplog.text


def _spoilt() -> Any:
    record = make_record()
    record.attempts[0].began = "soon"  # type: ignore[assignment]
    return record


async def test_it_writes_none_twice_when_the_database_fails_among_single_rows(journal: Journal) -> None:
    class Failing(Keys):
        """Has no key for the last of three rows that are written one by one."""

        given = 0

        def next(self, ended: float) -> int:
            self.given += 1
            if self.given == 5:  # two until the batch fails, then one for each
                raise OperationalError("database is locked")
            return super().next(ended)

    batch = [make_record(request_id="g0"), _spoilt(), make_record(request_id="g1")]
    keys = Failing()
    with pytest.raises(OperationalError):
        await sync_to_async(write_rows)(batch, keys)
    assert await sync_to_async(write_rows)(batch, keys) == 2
    assert [row.request_id for row in await rows()] == ["g0", "g1"]


async def test_it_keeps_hostile_words_and_numbers_out_of_the_way(journal: Journal) -> None:
    record = make_record(
        path="/olla/\udce9\0\n" + "x" * 5000, model="\ud800", method="M" * 500, client_key=None,
        usage=Usage(10**40, -5, None, float("nan"), {"a": float("inf")}),
    )  # fmt: skip
    record.attempts = [AttemptNote(GPU, 0.0)] * 5000
    journal.note([record])
    assert await journal.write_batch()
    [row] = await rows()
    assert (len(row.path), len(row.method), row.attempts) == (1024, 16, 5000)
    assert (row.input_tokens, row.output_tokens, row.tokens_per_second) == (2**63 - 1, 0, None)
    assert 0 < len(json.loads(row.attempt_notes)) < 5000


def test_it_gives_growing_keys_to_any_times() -> None:
    keys = Keys()
    given = [keys.next(START + step) for step in (0, 0, 0.001, -3600, 5, 5)]
    given += [keys.next(START + 6) for _ in range(5000)]
    assert given == sorted(set(given))
    assert given[0] >> KEY_SHIFT == START * 1000
    assert given[5] >> KEY_SHIFT == (START + 5) * 1000


async def test_it_shares_the_log_between_processes(transactional_db: None) -> None:
    def write(client: str) -> None:
        try:
            fill(iter([make_record(client=client) for _ in range(300)]), batch=30)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(f"10.0.0.{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len({row.pk for row in await rows()}) == 900


async def test_it_is_started_and_stopped_with_the_server(proxy: Proxy, settings: Any) -> None:
    settings.OLLA_REQUEST_LOG = False
    start_journal()
    assert not journal_state().enabled
    settings.OLLA_REQUEST_LOG = True
    start_journal()
    start_journal()
    try:
        await proxy.chat()
        assert (journal_state().enabled, journal_state().capacity) == (True, 10_000)
    finally:
        await stop_journal()
    assert not journal_state().enabled
    assert [row.error_code for row in await rows()] == ["no_endpoints"]
    await proxy.chat()
    assert len(await rows()) == 1


def test_it_tells_times_in_utc_with_milliseconds() -> None:
    row = dict(zip(COLUMNS, RowBuilder().build(make_record(START + 0.1234), 1), strict=True))
    assert row["time"] == datetime.fromtimestamp(START + 0.123, UTC)
    assert (row["endpoint"], row["outcome"]) == (GPU.name, Outcome.SUCCESS)
    assert CPU.name not in row["trace"]


@pytest.mark.parametrize("moment", [START, START + 0.1234, START + 0.9996, START + 59.0004, 0.001])
def test_it_writes_times_as_django_does(moment: float) -> None:
    text = UTCText()
    text.write(START)
    assert text.write(moment) == str(moment_of(moment))[:-6]


def test_it_cleans_each_text_by_its_own_limit() -> None:
    builder, long = RowBuilder(), "x" * 2000
    for model, sent in (("m", "m"), (long, "other"), (None, None)):
        record = make_record(model=model, sent_model=sent, path="/" + long, prefix=long, method=long)
        for _ in range(2):
            row = dict(zip(COLUMNS, builder.build(record, 1), strict=True))
            assert (row["model"], row["sent_model"]) == ((model or "")[:200], sent or "")
            assert (len(row["path"]), len(row["provider"]), len(row["method"])) == (1024, 100, 16)
