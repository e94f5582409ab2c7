"""Explain: what it says is what then happens, and saying it changes nothing."""

from __future__ import annotations

import copy
import json
from io import StringIO
from random import Random
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.test import Client

from proxy.admission import admission
from proxy.live import live
from proxy.rehearsal import Asked, explain
from tests.canaries import API_KEY
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.agreement import (
    DEAD,
    GOOD,
    SETTINGS,
    Backends,
    make_fleet,
    make_requests,
    make_rules,
    occupy,
)

HOST = (b"host", b"olla.test:40114")
CLIENT = "10.1.2.3"  # as the in-process door of the tests has it
FULL = "nobody: all places are taken"
CHAT = "/olla/openai/v1/chat/completions"


def ask(path: str = CHAT, **fields: Any) -> dict[str, Any]:
    body = fields.pop("body", None)
    if body is None:
        body = json.dumps({"model": fields.pop("model", "m")}).encode()
    headers = [HOST, *fields.pop("headers", ())]
    return explain(Asked(path=path, body=body, client=CLIENT, headers=headers, **fields))


def expect(told: dict[str, Any], behaviour: dict[str, str]) -> tuple[str | None, bool]:
    """Who answers if the tries go as told, each endpoint behaving as it does, and whether with 200.

    Nobody (None) when all are dead: then routing looks again, which explain cannot foresee.
    """
    held = None
    for each in told["tries"]:
        if each["why"] == "queue":
            return held or FULL, False
        how = behaviour[each["endpoint"]]
        if how == GOOD:
            return each["endpoint"], True
        if how != DEAD:
            held = each["endpoint"]
    return held, False


class Comparison:
    """One explanation held against the answer to the same request."""

    def __init__(self, told: dict[str, Any], path: str, answer: Any, behaviour: dict[str, str]) -> None:
        self.told, self.path, self.answer, self.behaviour = told, path, answer, behaviour
        self.endpoint = answer.header("X-Olla-Endpoint")

    def check(self) -> str:
        """What was compared. Raises AssertionError."""
        told = self.told
        if told["outcome"] == "answered_here":
            assert self.endpoint is None
            assert self.answer.header("X-Olla-Routing-Decision") is None
            return "answered here"
        if told["outcome"] == "rejected" and "dice" not in told.get("random", ()):
            return self.check_refusal()
        return self.check_split() if "dice" in told["random"] else self.check_routed()

    def check_refusal(self) -> str:
        refusal = self.told["answer"]
        assert (self.answer.status, self.endpoint) == (refusal["status"], None)
        text = self.answer.body.decode()
        assert refusal["code"] in text or self.path.startswith("/olla/anthropic/")  # whose errors have no code
        if "discovery" not in self.told.get("random", ()):
            assert json.dumps(refusal["message"], ensure_ascii=False)[1:-1][:60] in text
        return f"refused {refusal['code']}"

    def check_split(self) -> str:
        """Chance was named: what happens is one of the two sides."""
        firsts = {*self.told["split"]["inside"], *self.told["split"]["outside"], None}
        assert self.endpoint in firsts
        return "split"

    def check_routed(self) -> str:
        told = self.told
        expected, good = expect(told, self.behaviour)
        if expected == FULL:
            assert self.answer.status in (503, 529)
            return "full"
        if expected is None:
            assert self.endpoint not in {each["endpoint"] for each in told["tries"]}
            return "all dead"
        if not good and self.endpoint not in {each["endpoint"] for each in told["tries"]}:
            return "found when looking again"
        assert self.endpoint == expected
        if "discovery" not in told["random"] and told["strategy"] and good:
            assert self.answer.header("X-Olla-Routing-Strategy") == told["strategy"]
            assert self.answer.header("X-Olla-Routing-Decision") == told["outcome"]
            assert self.answer.header("X-Olla-Routing-Reason") == told["reason"]
        tried = next(each for each in told["tries"] if each["endpoint"] == expected)
        if told["session"]:
            self.check_session(expected)
        if good and tried["mode"] is not None:
            assert self.answer.header("X-Olla-Mode") == tried["mode"]
        return "routed" if expected == told["tries"][0]["endpoint"] else "failed over"

    def check_session(self, expected: str) -> None:
        outcome, session = self.answer.header("X-Olla-Sticky-Session"), self.told["session"]
        if expected == self.told["tries"][0]["endpoint"]:
            assert outcome == session["outcome"]
        assert self.answer.header("X-Olla-Sticky-Key-Source") == session["source"]


@pytest.mark.long_form
async def test_it_agrees_with_what_then_happens(proxy, settings, long_form):
    """210 requests over 14 fleets; 1,005 over 67 in the long form."""
    fleets, each = (67, 15) if long_form else (14, 15)
    seen: dict[str, int] = {}
    async with Backends() as backends:
        for seed in range(fleets):
            dice = Random(seed)
            for name, values in SETTINGS.items():
                setattr(settings, name, dice.choice(values))
            live.reset()
            admission.forget()
            behaviour = await make_fleet(proxy, dice, backends)
            await sync_to_async(make_rules)(dice)
            await proxy.refresh()
            for method, path, body, headers in make_requests(dice, each):
                slots = occupy(dice)
                raw = [HOST, *((name.lower().encode(), value.encode()) for name, value in headers)]
                told = explain(Asked(path, method, b"", raw, body, CLIENT))
                before = (len(backends.good.requests), len(backends.tired.requests))
                answer = await proxy.call(method, path, body, headers=headers)
                try:
                    what = Comparison(told, path, answer, behaviour).check()
                    if what == "routed" and method == "POST":
                        check_sent(told, backends, before)
                except AssertionError as error:
                    happened = f"{answer.status} {answer.headers} {answer.body[:300]!r}"
                    raise AssertionError(f"fleet {seed}: {method} {path} {body!r}\n{told}\n{happened}") from error
                seen[what] = seen.get(what, 0) + 1
                for slot in slots:
                    slot.release()
            await proxy.settled()
            await proxy.clear()
    for kind in ("routed", "failed over", "split", "answered here", "full", "refused model_not_found"):
        assert seen.get(kind), f"no request was {kind}: {seen}"


def check_sent(told: dict[str, Any], backends: Backends, before: tuple[int, int]) -> None:
    """The first try sent the path and the model it was said to send."""
    [request] = backends.good.requests[before[0] :] + backends.tired.requests[before[1] :]
    first = told["tries"][0]
    assert request.path == first["sends_path"]
    if first["sends_model"] and request.body.startswith(b"{"):
        assert request.json().get("model") == first["sends_model"]


def counters() -> Any:
    """Everything that counting requests moves."""
    sticky = live.sticky
    return copy.deepcopy((
        dict(live.requests), dict(live.failures), dict(live.in_flight), dict(live._cursors),
        live.tallies.all.hang_ups,
        (dict(sticky._pins), sticky.hits, sticky.misses, sticky.insertions, sticky.evictions),
        dict(live.rates._minute.counts), list(live.breaker._gates), dict(live.demoted), dict(live.resting),
        (dict(admission.requests._minute.counts), dict(admission.requests._second.counts)),
        (admission.requests._total, len(admission.open_requests)),
        live.anthropic.totals,
    ))  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, "/olla/anthropic/v1/messages", "/olla/ollama/api/pull", "/olla/models"])
@pytest.mark.usefixtures("still_clock")
async def test_it_moves_no_counter(proxy, settings, path):
    settings.OLLA_STICKY_SESSIONS = "1"
    settings.OLLA_PER_IP_REQUESTS_PER_MINUTE = settings.OLLA_BURST_SIZE = "50"
    settings.OLLA_LOAD_BALANCER = "round-robin"
    settings.OLLA_PER_IP_CONCURRENT_REQUESTS = "3"
    live.reset()
    async with ScriptedBackend(json_reply({"ok": 1})) as backend:
        for name in ("one", "two"):
            await proxy.add(backend.url, name, requests_per_minute=50)
        await proxy.chat(messages=[{"role": "user", "content": "hello"}])
        before = counters()
        body = json.dumps({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}).encode()
        for _ in range(3):
            ask(path, body=body)
        assert counters() == before
        assert len(backend.requests) == 1


@pytest.mark.usefixtures("still_clock")
async def test_it_says_when_a_client_has_used_its_share_up(proxy, settings):
    settings.OLLA_PER_IP_REQUESTS_PER_MINUTE = "1"
    await proxy.add("http://127.0.0.1:9", "one", status="offline")
    assert ask()["answer"]["code"] == "model_unavailable"
    await proxy.chat()
    told = ask()
    assert (told["stage"], told["answer"]["status"], told["answer"]["code"]) == ("admission", 429, "rate_limited")


@pytest.mark.parametrize(("fields", "stage", "code"), [
    ({"path": "/somewhere"}, "address", "not_found"),
    ({"path": "/olla/nonsense/v1/chat/completions"}, "address", "unknown_provider"),
    ({"path": "/olla/openai/v1/../x"}, "request", "invalid_request"),
    ({"body": b"{"}, "request", "invalid_json"),
    ({"path": "/olla/anthropic/v1/nothing"}, "address", "not_found"),
    ({"path": "/olla/anthropic/v1/messages", "method": "PUT"}, "address", "method_not_allowed"),
    ({"headers": [(b"x-olla-operator", b"forged")]}, "request", "invalid_key"),
    ({"path": "/olla/ollama/api/pull"}, "routing", "not_supported"),
    ({"path": "/olla/vllm/v1/chat/completions"}, "routing", "no_endpoints"),
])  # fmt: skip
async def test_it_says_where_a_request_ends(proxy, fields, stage, code):
    await proxy.add("http://127.0.0.1:9", "one", backend_type="ollama")
    told = ask(**fields)
    assert (told["outcome"], told["stage"], told["answer"]["code"]) == ("rejected", stage, code)


async def test_it_names_every_endpoint_and_why(proxy):
    await proxy.add("http://127.0.0.1:9", "good", backend_type="vllm")
    await proxy.add("http://127.0.0.1:9", "empty", models=(), backend_type="vllm")
    await proxy.add("http://127.0.0.1:9", "gone", status="offline", backend_type="vllm")
    await proxy.add("http://127.0.0.1:9", "other", backend_type="ollama")
    told = ask("/olla/vllm/v1/chat/completions")
    assert {each["name"]: each["dropped"] for each in told["endpoints"]} == {
        "good": None, "empty": "model_missing", "gone": "status", "other": "other_kind",
    }  # fmt: skip
    assert [(each["endpoint"], each["sends_model"]) for each in told["tries"]] == [("good", "m")]
    assert told["random"] == []


async def test_it_names_the_turn_among_equals(proxy):
    for name in ("one", "two"):
        await proxy.add("http://127.0.0.1:9", name)
    assert ask()["random"] == ["turn"]


class TestAddress:
    PATH = "/internal/explain"

    @pytest.fixture
    def cookie(self, django_user_model, transactional_db):
        def sign_in(*permissions: str) -> tuple[str, str]:
            user = django_user_model.objects.create_user("vera", password="right-password")
            user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
            client = Client()
            client.force_login(user)
            return "Cookie", f"sessionid={client.cookies['sessionid'].value}"

        return sync_to_async(sign_in)

    async def get(self, proxy, query, *headers):
        return await proxy.call("GET", self.PATH, headers=headers, query=query)

    async def test_it_answers_who_may_view_endpoints(self, proxy, cookie):
        await proxy.add("http://127.0.0.1:9", "one")
        viewer = await cookie("view_endpoint")
        answer = await self.get(proxy, f"path={CHAT}&model=m&header=X-Team:%20red".encode(), viewer)
        assert answer.status == 200
        assert answer.json()["tries"][0]["endpoint"] == "one"
        assert answer.header("Cache-Control") == "no-store"

    async def test_it_takes_a_whole_request_as_json(self, proxy, cookie):
        await proxy.add("http://127.0.0.1:9", "one")
        body = {"model": "m", "messages": []}
        question = {"path": CHAT, "body": body, "headers": {"X-Api-Key": API_KEY}, "client": "1.2.3.4"}
        answer = await proxy.call("POST", self.PATH, question, headers=[await cookie("view_endpoint")])
        assert (answer.json()["client"], answer.json()["outcome"]) == ("1.2.3.4", "routed")
        assert API_KEY not in answer.body.decode()

    @pytest.mark.parametrize("permissions", [(), ("view_modelalias",)])
    async def test_it_refuses_who_may_not(self, proxy, cookie, permissions):
        answer = await self.get(proxy, b"path=/olla/models", await cookie(*permissions))
        assert (answer.status, answer.json()["error"]["code"]) == (403, "forbidden_path")

    @pytest.mark.parametrize("headers", [(), (("Cookie", "sessionid=stolen"),)])
    async def test_it_refuses_who_is_not_signed_in(self, proxy, headers):
        assert (await self.get(proxy, b"path=/olla/models", *headers)).status == 403

    @pytest.mark.parametrize(("query", "hint"), [
        (b"", "`path` is missing"),
        (b"path=olla", "slash"),
        (b"path=/olla/models&modle=x", "modle"),
        (b"path=/olla/models&model=x&body=y", "not both"),
        (b"path=/olla/models&header=nocolon", "Name: value"),
        (b"path=/olla/models&method=HACK", "method"),
    ])  # fmt: skip
    async def test_it_says_what_is_wrong_with_a_question(self, proxy, cookie, query, hint):
        answer = await self.get(proxy, query, await cookie("view_endpoint"))
        assert (answer.status, hint in answer.json()["error"]["message"]) == (400, True)

    async def test_it_refuses_a_body_that_is_no_question(self, proxy, cookie):
        viewer = await cookie("view_endpoint")
        for body in (b"", b"[]", b'{"path":1}', b'{"path":"/x","nonsense":1}', b"\xff"):
            answer = await proxy.call("POST", self.PATH, body, headers=[viewer])
            assert answer.status == 400


class TestCommand:
    def run(self, *arguments: str) -> str:
        out = StringIO()
        call_command("explain", *arguments, stdout=out)
        return out.getvalue()

    async def test_it_tells_it_in_words(self, proxy):
        await proxy.add("http://127.0.0.1:9", "one")
        await proxy.add("http://127.0.0.1:9", "two", status="offline")
        text = await sync_to_async(self.run)(CHAT, "--model", "m")
        assert "Try 1: one (chosen by the policy" in text  # the name is the one asked for
        assert "Not two: its status takes no traffic (offline, active)" in text
        assert "without a running server" in text

    async def test_it_tells_everything_as_json(self, proxy):
        await proxy.add("http://127.0.0.1:9", "one")
        told = json.loads(await sync_to_async(self.run)(CHAT, "--body", '{"model":"none"}', "--json"))
        assert (told["answer"]["code"], told["live_known"]) == ("model_not_found", False)

    async def test_it_says_what_is_wrong(self, proxy):
        with pytest.raises(CommandError, match="slash"):
            await sync_to_async(self.run)("olla")
