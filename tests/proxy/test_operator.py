"""Operator tokens: the trace of a request and a pinned endpoint, for those who may ask and nobody else."""

from __future__ import annotations

import json
import time

import pytest
from asgiref.sync import sync_to_async

from endpoints.models import Endpoint, RoutingRule
from proxy.errors import ErrorCode, OllaError
from proxy.inbound import Order
from proxy.live import live
from proxy.operator_token import LIFETIME, Scope, issue_token, read_order, read_token
from proxy.routing import route
from proxy.sieve import DropReason
from proxy.steering import MOST_TRACE_BYTES, build_compact, obey
from proxy.tracing import trace
from tests.canaries import API_KEY
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.builders import NOW, make_endpoint, make_inbound, make_snapshot, make_view, outcome_of


def token_header(*scopes: Scope, now: float | None = None) -> tuple[str, str]:
    return "X-Olla-Operator", issue_token(7, scopes, time.time() if now is None else now)


TRACE, PIN = Scope.TRACE, Scope.PIN


class TestTokens:
    def test_it_reads_what_it_issued(self):
        assert read_token(issue_token(7, [PIN, TRACE], NOW), NOW + LIFETIME - 1) == {PIN, TRACE}

    def test_it_refuses_a_token_past_its_time(self):
        refusal = outcome_of(lambda: read_token(issue_token(7, [PIN], NOW), NOW + LIFETIME))
        assert (refusal.code, "expired" in refusal.message) == (ErrorCode.INVALID_KEY, True)

    def test_it_issues_no_token_without_a_scope(self):
        with pytest.raises(ValueError, match="scope"):
            issue_token(7, [], NOW)

    @pytest.mark.parametrize("spoil", [
        lambda token: token[:-1],
        lambda token: token.swapcase(),
        lambda token: "x" + token,
        lambda token: token.replace(":", ""),
        lambda _: "",
        lambda _: ":",
        lambda _: "\xff\x00:\xe9",
        lambda token: token * 20,
    ])  # fmt: skip
    def test_it_refuses_what_is_not_its_own(self, spoil):
        refusal = outcome_of(lambda: read_token(spoil(issue_token(7, [PIN], NOW)), NOW))
        assert refusal.code is ErrorCode.INVALID_KEY
        assert refusal.status == 401

    def test_it_refuses_a_token_signed_with_another_key(self, settings):
        token = issue_token(7, [PIN], NOW)
        settings.SECRET_KEY = "another"
        assert outcome_of(lambda: read_token(token, NOW)).code is ErrorCode.INVALID_KEY

    def test_it_asks_nothing_without_headers(self):
        assert read_order([(b"authorization", b"Bearer x")] * 14, [], NOW) is None

    @pytest.mark.parametrize("scopes", [(), (TRACE,)])
    def test_it_refuses_a_pin_without_the_scope(self, scopes):
        headers = [(b"x-olla-pin", b"gpu-1")]
        if scopes:
            headers.append((b"x-olla-operator", issue_token(7, scopes, NOW).encode()))
        refusal = outcome_of(lambda: read_order(headers, [], NOW))
        assert refusal.code is ErrorCode.INVALID_KEY

    def test_it_reads_a_pin_with_letters_beyond_latin(self):
        headers = [
            (b"x-olla-operator", issue_token(7, [PIN], NOW).encode()),
            (b"x-olla-pin", b"k%C3%BCche%20%E2%9C%93"),
        ]
        order = read_order(headers, [], NOW)
        assert order == Order(pin="küche ✓", trace_to=None)


class TestCompactTrace:
    def compact(self, *endpoints, **view):
        snapshot, inbound = make_snapshot(*endpoints), make_inbound(model="m")
        seen = make_view(**view)
        return build_compact(trace(snapshot, inbound, seen, route(snapshot, inbound, seen)), seen, Order())

    def test_it_tells_tiers_and_drops(self):
        told = json.loads(self.compact(
            make_endpoint("a", models=["m"]),
            make_endpoint("b", models=["other"]),
            make_endpoint("c", models=["m"], status="offline"),
        ))  # fmt: skip
        assert told == {
            "action": "routed", "strategy": "strict", "reason": "model_found", "tiers": [["a"]],
            "dropped": {"model_missing": ["b"], "status": ["c"]}, "revision": 1,
        }  # fmt: skip

    def test_it_tells_why_nobody_has_the_model(self):
        told = json.loads(self.compact(make_endpoint("b", models=["other"])))
        assert (told["code"], told["dropped"]) == ("model_not_found", {"model_missing": ["b"]})

    @pytest.mark.parametrize("count", [1, 30, 200, 3000])
    def test_it_never_grows_over_its_bound(self, count):
        names = [f"{number}-" + "ü" * 90 for number in range(count)]
        endpoints = [
            make_endpoint(name, id=number, models=["m"], url="http://gpu:1")
            for number, name in enumerate(names, 1)
        ]
        text = self.compact(*endpoints)
        assert len(text) <= MOST_TRACE_BYTES
        first = json.loads(text)["tiers"][0]
        assert sum(each if isinstance(each, int) else 1 for each in first) == count


class TestPin:
    def decide(self, pin, *endpoints, **view):
        snapshot, seen = make_snapshot(*endpoints), make_view(**view)
        inbound = make_inbound(model="m", order=Order(pin=pin))
        return outcome_of(lambda: obey(snapshot, inbound, seen, route(snapshot, inbound, seen)))

    def test_it_leaves_the_pinned_endpoint_alone(self):
        decision = self.decide(
            "b", make_endpoint("a", models=["m"], priority=900), make_endpoint("b", models=["m"])
        )
        assert [each.name for each in decision.candidates] == ["b"]

    def test_it_takes_a_number_where_no_name_fits(self):
        decision = self.decide("2", make_endpoint("a", id=1, models=["m"]), make_endpoint("b", id=2, models=["m"]))
        assert [each.name for each in decision.candidates] == ["b"]

    @pytest.mark.parametrize(("spoil", "reason"), [
        ({"status": "offline"}, DropReason.STATUS),
        ({"state": "draining"}, DropReason.OPERATOR_STATE),
        ({"models": ["other"]}, DropReason.MODEL_MISSING),
    ])  # fmt: skip
    def test_it_says_why_the_pinned_endpoint_may_not_answer(self, spoil, reason):
        pinned = make_endpoint("b", **{"models": ["m"], **spoil})
        refusal = self.decide("b", make_endpoint("a", models=["m"]), pinned)
        assert refusal.code is ErrorCode.PINNED_UNAVAILABLE
        assert f"({reason})" in refusal.message

    def test_it_refuses_an_endpoint_there_is_none_of(self):
        refusal = self.decide("nobody", make_endpoint("a", models=["m"]))
        assert isinstance(refusal, OllaError)
        assert refusal.code is ErrorCode.INVALID_REQUEST


async def two(proxy, first, second, **columns):
    one = await proxy.add(first.url, "one", **columns)
    return one, await proxy.add(second.url, "two", priority=1)


async def chat(proxy, *headers, model="m", path="/olla/proxy/v1/chat/completions"):
    return await proxy.call("POST", path, {"model": model}, headers=headers)


async def test_it_answers_with_the_trace_of_the_decision(proxy):
    async with ScriptedBackend(json_reply({"ok": 1})) as backend:
        await proxy.add(backend.url, "one")
        answer = await chat(proxy, token_header(TRACE))
    assert answer.status == 200
    told = json.loads(answer.header("X-Olla-Trace"))
    assert (told["action"], told["tiers"]) == ("routed", [["one"]])


async def test_it_traces_a_refusal_too(proxy):
    await proxy.add("http://127.0.0.1:9", "one")
    answer = await chat(proxy, token_header(TRACE), model="unknown")
    assert answer.status == 404
    assert json.loads(answer.header("X-Olla-Trace"))["dropped"] == {"model_missing": ["one"]}


async def test_it_traces_nothing_without_the_scope(proxy):
    async with ScriptedBackend(json_reply({"ok": 1})) as backend:
        await proxy.add(backend.url, "one")
        assert (await chat(proxy, token_header(PIN))).header("X-Olla-Trace") is None
        assert (await chat(proxy)).header("X-Olla-Trace") is None


async def test_it_sends_the_token_to_no_backend(proxy):
    async with ScriptedBackend(json_reply({"ok": 1})) as backend:
        await proxy.add(backend.url, "one")
        await chat(proxy, token_header(TRACE, PIN), ("X-Olla-Pin", "one"))
        head = backend.requests[0].raw
    assert b"x-olla" not in head.lower()


async def test_it_answers_from_the_pinned_endpoint_alone(proxy):
    async with ScriptedBackend(json_reply({"ok": 1})) as first, ScriptedBackend(json_reply({"ok": 2})) as second:
        await two(proxy, first, second, priority=900)
        for _ in range(4):
            answer = await chat(proxy, token_header(PIN), ("X-Olla-Pin", "two"))
            assert (answer.status, answer.header("X-Olla-Endpoint")) == (200, "two")
        assert len(first.requests) == 0


async def test_it_fails_over_to_nobody_when_the_pinned_endpoint_is_gone(proxy):
    async with ScriptedBackend(json_reply({"ok": 1})) as first:
        await proxy.add(first.url, "one")
        await proxy.add("http://127.0.0.1:9", "two")
        answer = await chat(proxy, token_header(PIN), ("X-Olla-Pin", "two"))
        assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
        assert "two" in answer.json()["error"]["message"]
        # Seen failing from here on, and said so.
        answer = await chat(proxy, token_header(PIN), ("X-Olla-Pin", "two"))
        assert (answer.status, answer.json()["error"]["code"]) == (503, "pinned_unavailable")
        assert len(first.requests) == 0


async def test_it_passes_the_pinned_endpoints_own_503_on(proxy):
    async with ScriptedBackend(json_reply({"no": 1}, 503)) as first, ScriptedBackend(json_reply({})) as second:
        await two(proxy, first, second)
        answer = await chat(proxy, token_header(PIN), ("X-Olla-Pin", "one"))
        assert (answer.status, answer.header("X-Olla-Endpoint")) == (503, "one")
        assert len(second.requests) == 0


async def test_it_refuses_a_bad_token_on_every_forwarded_route(proxy):
    await proxy.add("http://127.0.0.1:9", "one")
    for path in ("/olla/proxy/v1/chat/completions", "/olla/openai/v1/embeddings", "/olla/anthropic/v1/messages"):
        answer = await chat(proxy, ("X-Olla-Operator", f"forged:{API_KEY}"), path=path)
        assert answer.status == 401
        assert API_KEY not in answer.body.decode()


async def test_a_pin_obeys_rules(proxy):
    async with ScriptedBackend(json_reply({})) as first, ScriptedBackend(json_reply({})) as second:
        one, _ = await two(proxy, first, second)

        def add_rule() -> None:
            rule = RoutingRule.objects.create(name="only one", action="restrict", order=1)
            rule.endpoints.set([Endpoint.objects.get(pk=one.pk)])

        await sync_to_async(add_rule)()
        await proxy.refresh()
        answer = await chat(proxy, token_header(PIN), ("X-Olla-Pin", "two"))
        assert (answer.status, answer.json()["error"]["code"]) == (503, "pinned_unavailable")
        assert "(rule)" in answer.json()["error"]["message"]


async def test_a_pin_moves_no_session(proxy, settings):
    settings.OLLA_STICKY_SESSIONS = "1"
    live.reset()
    async with ScriptedBackend(json_reply({})) as first, ScriptedBackend(json_reply({})) as second:
        await two(proxy, first, second)
        session = ("X-Olla-Session-ID", "s1")
        pinned_to = (await chat(proxy, session)).header("X-Olla-Endpoint")
        other = "two" if pinned_to == "one" else "one"
        await chat(proxy, session, token_header(PIN), ("X-Olla-Pin", other))
        again = await chat(proxy, session)
    assert (again.header("X-Olla-Endpoint"), again.header("X-Olla-Sticky-Session")) == (pinned_to, "hit")
