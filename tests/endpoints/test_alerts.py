"""Alerts: told once, after a while, not in maintenance, by one process, and to nobody else."""

from __future__ import annotations

import asyncio
import json
import logging
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from endpoints.alerts.facts import forget_gone, look_at_endpoints
from endpoints.alerts.judging import AlertKind, Fact, HookKind, Message, Told, judge
from endpoints.alerts.sending import Hook, SendError, build_body, deliver, post
from endpoints.alerts.watching import Watcher, _take, take_due
from endpoints.models import AlertHook, AlertState, Endpoint, EndpointHealth
from endpoints.secrets import Secret
from endpoints.tasks import running_tasks
from endpoints.transport import Transport
from tests.canaries import ALL, BEARER, QUERY
from tests.fakes import ScriptedBackend, Silence, json_reply, redirect_reply

NOW = 1_750_000_000.0
LIST = "/admin/endpoints/alerthook/"
ADD = f"{LIST}add/"
FIELDS = {"name": "ops", "kind": "json", "events": ["endpoint", "prober"], "enabled": "on"}
DOWN = Fact(AlertKind.ENDPOINT, "gpu", True, "Endpoint gpu is down")
UP = Fact(AlertKind.ENDPOINT, "gpu", False, "Endpoint gpu is back")
OPEN = Fact(AlertKind.BREAKER, "gpu", True, "open", lasts=False)
MESSAGE = Message(AlertKind.ENDPOINT, "endpoint_down", "gpu", "Endpoint gpu is down", NOW)


def play(*story: tuple[float, Fact], hold: float = 30, repeat: float = 900) -> list[tuple[float, str]]:
    """What is told, when, of facts seen at these seconds."""
    told, sent = Told(), []
    for at, fact in story:
        told, message = judge(told, fact, NOW + at, hold=hold, repeat=repeat)
        if message is not None:
            sent.append((at, message.event))
    return sent


def muted(fact: Fact) -> Fact:
    return Fact(fact.kind, fact.subject, fact.is_bad, fact.text, muted=True)


class TestJudging:
    def test_it_tells_of_what_lasts_and_of_its_end(self):
        story = [(0, DOWN), (29, DOWN), (30, DOWN), (60, DOWN), (100, UP), (129, UP), (130, UP), (200, UP)]
        assert play(*story) == [(30, "endpoint_down"), (130, "endpoint_up")]

    def test_it_says_nothing_of_what_passes_quickly(self):
        assert play((0, DOWN), (10, UP), (20, DOWN), (49, DOWN), (49.5, UP), (100, UP)) == []

    def test_it_says_nothing_of_a_short_return(self):
        assert play((0, DOWN), (30, DOWN), (40, UP), (60, DOWN), (100, DOWN)) == [(30, "endpoint_down")]

    def test_it_tells_the_same_trouble_once_within_the_repeat_time(self):
        story = [(0, DOWN), (30, DOWN), (40, UP), (70, UP), (80, DOWN), (200, DOWN), (929, DOWN), (930, DOWN)]
        assert play(*story) == [(30, "endpoint_down"), (70, "endpoint_up"), (930, "endpoint_down")]

    def test_it_tells_no_end_of_what_it_did_not_tell(self):
        story = [(0, DOWN), (30, DOWN), (40, UP), (70, UP), (80, DOWN), (200, DOWN), (210, UP), (300, UP)]
        assert play(*story)[2:] == []

    def test_it_is_silent_in_maintenance_and_begins_anew_after_it(self):
        story = [(0, DOWN), (20, muted(DOWN)), (500, muted(DOWN)), (501, DOWN), (530, DOWN), (531, DOWN)]
        assert play(*story) == [(531, "endpoint_down")]

    def test_it_tells_of_an_occurrence_at_once_and_not_of_its_end(self):
        closed = Fact(AlertKind.BREAKER, "gpu", False, "", lasts=False)
        assert play((0, OPEN), (5, OPEN), (10, closed), (899, OPEN), (900, OPEN)) == [
            (0, "breaker_open"), (900, "breaker_open"),
        ]  # fmt: skip


@pytest.fixture
async def door():
    transport = Transport()
    yield transport
    await transport.aclose()


def hook_to(url: str, kind: HookKind = HookKind.JSON) -> Hook:
    return Hook("ops", kind, Secret(url), frozenset(AlertKind))


class TestSending:
    async def test_it_posts_json(self, door):
        async with ScriptedBackend(json_reply({"ok": 1})) as backend:
            assert await post(hook_to(f"{backend.url}/hooks/x?token={QUERY}"), MESSAGE, door) == 200
        [request] = backend.requests
        assert (request.method, request.target) == (b"POST", f"/hooks/x?token={QUERY}".encode())
        assert request.header("Content-Type") == "application/json"
        body = request.json()
        assert (body["event"], body["subject"], body["message"]) == (
            "endpoint_down",
            "gpu",
            "Endpoint gpu is down",
        )

    def test_a_chat_gets_its_text_alone(self):
        assert json.loads(build_body(HookKind.CHAT, MESSAGE)) == {"text": "Endpoint gpu is down"}

    async def test_it_follows_no_redirect(self, door):
        async with ScriptedBackend(json_reply({})) as other, ScriptedBackend(redirect_reply(other.url)) as backend:
            with pytest.raises(SendError, match="302; redirects are not followed"):
                await post(hook_to(backend.url), MESSAGE, door)
            assert len(other.requests) == 0

    @pytest.mark.parametrize(
        "url", ["http://169.254.169.254/latest", "http://[::ffff:169.254.169.254]/", "ftp://x/"]
    )
    async def test_it_contacts_no_forbidden_address(self, door, url):
        with pytest.raises(SendError):
            await post(hook_to(url), MESSAGE, door)

    async def test_it_waits_no_longer_than_it_should(self, door):
        async with ScriptedBackend(Silence()) as backend:
            with pytest.raises(SendError, match="No answer"):
                await post(hook_to(backend.url), MESSAGE, door, timeout=0.2)

    @pytest.mark.parametrize(("statuses", "tries", "taken"), [
        ((503, 429, 200), 3, True), ((503, 503, 503, 200), 3, False), ((404, 200), 1, False),
        ((302, 200), 1, False),
    ])  # fmt: skip
    async def test_it_tries_again_a_few_times(self, door, statuses, tries, taken):
        async with ScriptedBackend([json_reply({}, status) for status in statuses]) as backend:
            assert await deliver(hook_to(backend.url), MESSAGE, door, pauses=(0.01, 0.01)) is taken
            assert len(backend.requests) == tries

    async def test_it_names_no_url_when_it_fails(self, door, caplog):
        await deliver(hook_to(f"http://127.0.0.1:9/{BEARER}"), MESSAGE, door, pauses=())
        [record] = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert "ops did not take endpoint_down" in record.getMessage()
        assert BEARER not in record.getMessage()


def add_endpoint(name="gpu", status="offline", **columns) -> Endpoint:
    endpoint = Endpoint.objects.create(name=name, url="http://127.0.0.1:9", **columns)
    EndpointHealth.objects.create(endpoint=endpoint, status=status, last_error="Connection refused")
    return endpoint


@pytest.mark.django_db(transaction=True)
class TestWatching:
    def test_of_several_processes_one_tells(self):
        AlertHook.objects.create(name="ops", url="http://127.0.0.1:9")
        due = [take_due([OPEN], NOW, hold=0, repeat=900) for _ in range(3)]
        assert [len(each) for each in due] == [1, 0, 0]

    def test_a_row_changed_meanwhile_is_another_processes_to_tell(self):
        AlertHook.objects.create(name="ops", url="http://127.0.0.1:9")
        take_due([DOWN], NOW, hold=30, repeat=900)
        stale = AlertState.objects.get()
        AlertState.objects.update(version=9)
        assert _take(stale, stale.key, Told(is_bad=True)) is False

    def test_it_keeps_nothing_while_nobody_listens(self):
        AlertHook.objects.create(name="off", url="http://127.0.0.1:9", enabled=False)
        AlertHook.objects.create(name="other", url="http://127.0.0.1:9", events="prober")
        assert take_due([DOWN], NOW, hold=0, repeat=0) == []
        assert AlertState.objects.count() == 0

    def test_a_hook_nothing_can_be_sent_to_stops_no_other(self, caplog):
        AlertHook.objects.create(name="odd", kind="pager", url="http://127.0.0.1:9")
        AlertHook.objects.create(name="lost", url="http://127.0.0.1:9")
        table = AlertHook._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET url = 'no token of ours' WHERE name = 'lost'")  # noqa: S608
        AlertHook.objects.create(name="ops", url="http://127.0.0.1:9")
        for _ in range(3):
            AlertState.objects.all().delete()
            [due] = take_due([OPEN], NOW, hold=0, repeat=900)
            assert [hook.name for hook in due.hooks] == ["ops"]
        told = [each.getMessage() for each in caplog.records if "is told nothing" in each.getMessage()]
        assert [text.split()[2] for text in sorted(told)] == ["lost", "odd"]

    def test_it_forgets_what_it_told_of_endpoints_that_are_gone(self):
        add_endpoint()
        for key in ("endpoint:gpu", "breaker:gpu", "endpoint:old", "breaker:old", "prober:prober"):
            AlertState.objects.create(key=key)
        assert forget_gone() == 2
        assert sorted(AlertState.objects.values_list("key", flat=True)) == [
            "breaker:gpu", "endpoint:gpu", "prober:prober",
        ]  # fmt: skip

    @pytest.mark.parametrize(("columns", "bad", "silent"), [
        ({}, True, False),
        ({"status": "healthy"}, False, False),
        ({"status": "unknown"}, False, True),
        ({"state": "maintenance"}, True, True),
        ({"state": "disabled"}, True, True),
        ({"maintenance_until": "2099-01-01T00:00:00Z"}, True, True),
    ])  # fmt: skip
    def test_it_knows_which_endpoints_are_down_and_meant_to_be(self, columns, bad, silent):
        add_endpoint(**columns)
        [fact] = look_at_endpoints(time.time())
        assert (fact.is_bad, fact.muted) == (bad, silent)


async def test_it_tells_hooks_of_an_endpoint_that_goes_down_and_comes_back(transactional_db, settings):
    settings.OLLA_ALERT_HOLD = "0"
    async with ScriptedBackend(json_reply({})) as json_hook, ScriptedBackend(json_reply({})) as chat_hook:

        def prepare() -> None:
            AlertHook.objects.create(name="json", url=f"{json_hook.url}/?token={QUERY}")
            AlertHook.objects.create(name="chat", kind="chat", url=chat_hook.url, events="endpoint")
            add_endpoint(auth_type="bearer", auth_secret=Secret(BEARER))

        await sync_to_async(prepare)()
        watchers = [Watcher(look_at_endpoints, in_thread=True) for _ in range(2)]
        now = time.time()
        for watcher in watchers:
            await watcher.look(now)
        await json_hook.wait_requests(1)
        await EndpointHealth.objects.aupdate(status="healthy")
        for watcher in watchers:
            await watcher.look(now + 1)
        await json_hook.wait_requests(2)
        await chat_hook.wait_requests(2)
        while running_tasks():
            await sync_to_async(time.sleep)(0.01)
        assert sorted(each.json()["event"] for each in json_hook.requests) == ["endpoint_down", "endpoint_up"]
        texts = {each.json()["text"] for each in chat_hook.requests}
        assert texts == {"Endpoint gpu is down (offline): Connection refused", "Endpoint gpu is back (healthy)"}
        bodies = b"".join(each.body for each in (*json_hook.requests, *chat_hook.requests)).decode()
        assert [canary for canary in ALL if canary in bodies] == []
        for watcher in watchers:
            watcher._database.close()
            await watcher._door.aclose()


@pytest.mark.django_db
class TestAdmin:
    def test_its_url_is_kept_and_never_shown(self, admin_client):
        url = f"http://127.0.0.1:9/{BEARER}"
        assert admin_client.post(ADD, {**FIELDS, "url": url}).status_code == 302
        row = AlertHook.objects.get()
        page = f"{LIST}{row.pk}/change/"
        assert BEARER not in admin_client.get(page).content.decode()
        assert admin_client.post(page, {**FIELDS, "name": "renamed", "url": ""}).status_code == 302
        row.refresh_from_db()
        assert (row.name, row.url.reveal(), row.event_names()) == ("renamed", url, ["endpoint", "prober"])
        assert BEARER not in admin_client.get(LIST).content.decode()

    @pytest.mark.parametrize("url", ["", "ftp://x", f"http://user:{BEARER}@host/", "not a url"])
    def test_it_refuses_a_url_nobody_can_post_to(self, admin_client, url):
        answer = admin_client.post(ADD, {**FIELDS, "url": url})
        assert answer.status_code == 200
        assert BEARER not in answer.content.decode()
        assert AlertHook.objects.count() == 0

    @pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
    def test_it_refuses_an_address_that_is_never_contacted(self, admin_client, host):
        answer = admin_client.post(ADD, {**FIELDS, "url": f"http://{host}/{BEARER}"})
        assert "is never contacted" in answer.content.decode()
        assert BEARER not in answer.content.decode()
        assert AlertHook.objects.count() == 0


async def test_its_form_saves_and_sends_a_test(transactional_db, admin_client):
    async with ScriptedBackend(json_reply({})) as backend:

        def press(where: str, **fields: str) -> str:
            form = {**FIELDS, "kind": "chat", "_send_test": "1", **fields}
            return str(admin_client.post(where, form, follow=True).content.decode())

        page = await asyncio.to_thread(press, ADD, url=f"{backend.url}/{BEARER}")
        row = await AlertHook.objects.aget()
        again = await asyncio.to_thread(press, f"{LIST}{row.pk}/change/", name="renamed")
        assert "Hook ops took the test message." in page
        assert "Hook renamed took the test message." in again
        assert BEARER not in page + again
        assert [each.json() for each in backend.requests] == [{"text": "A test message from Olla."}] * 2
        refused = await asyncio.to_thread(press, ADD, url="nonsense", name="x")
        assert "Use an http or https URL" in refused
        assert len(backend.requests) == 2


async def test_its_button_says_who_took_the_test_message(transactional_db, admin_client):
    async with ScriptedBackend(json_reply({})) as good, ScriptedBackend(json_reply({}, 404)) as bad:

        def press() -> str:
            rows = [
                AlertHook.objects.create(name=name, url=backend.url).pk
                for name, backend in (("good", good), ("bad", bad))
            ]
            rows.append(AlertHook.objects.create(name="odd", kind="pager", url=good.url).pk)
            form = {"action": "send_test", "_selected_action": rows}
            return str(admin_client.post(LIST, form, follow=True).content.decode())

        page = await asyncio.to_thread(press)
        assert "Hook good took the test message." in page
        assert "Hook bad did not take the test message. It answered 404." in page
        assert "Hook odd cannot be sent to." in page
        assert [each.json()["event"] for each in good.requests] == ["test"]
