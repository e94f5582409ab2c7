"""What reaches a backend, what comes back, and what is tried elsewhere."""

from __future__ import annotations

import json
import re

from endpoints.conf import installation_id
from proxy.live import live
from tests.fakes import Cut, Reply, ScriptedBackend, Silence, Step, json_reply, refused_origin
from tests.proxy.conftest import Proxy

OK = {"ok": True}


async def test_it_sends_exactly_these_bytes(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply(OK)) as backend:
        await proxy.add(
            f"{backend.url}/base/v1", auth_type="bearer", auth_secret="sk-own", preserve_path=True,
            extra_headers="X-Org: acme\nX-Team: ${ABSENT_TOKEN:-blue}",
        )  # fmt: skip
        answer = await proxy.call(
            "POST",
            "/olla/proxy/chat/completions",
            b'{"model": "m",  "messages":[]}',
            headers=[
                ("User-Agent", "test/1"), ("Accept", "*/*"), ("accept", "text/plain"), ("Cookie", "a=b"),
                ("Content-Type", "application/json"), ("Authorization", "Bearer client"), ("X-Api-Key", "client"),
                ("Origin", "http://evil"), ("Referer", "http://evil/x"), ("Sec-Fetch-Mode", "cors"),
                ("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"), ("TE", "trailers"), ("Upgrade", "h2c"),
                ("X-Olla-Session-ID", "s"), ("X_Under", "1"), ("X-Forwarded-For", "1.1.1.1"),
                ("X-Request-ID", "mine"), ("Via", "1.0 other"), ("X-CSRFToken", "t"), ("X-Custom", "kept"),
            ],
            query=b"a=1&b=%20",
        )  # fmt: skip
        assert answer.status == 200
        assert backend.requests[0].raw == (
            b"POST /base/v1/chat/completions?a=1&b=%20 HTTP/1.1\r\n"
            b"Host: " + backend.origin.authority.encode() + b"\r\n"
            b"user-agent: test/1\r\naccept: */*\r\naccept: text/plain\r\ncontent-type: application/json\r\n"
            b"x-request-id: mine\r\nx-custom: kept\r\n"
            b"X-Real-IP: 10.1.2.3\r\nX-Forwarded-For: 1.1.1.1, 10.1.2.3\r\nX-Forwarded-Proto: http\r\n"
            b"X-Forwarded-Host: olla.test:40114\r\nX-Model: m\r\n"
            b"Via: 1.0 other, 1.1 olla-" + installation_id().encode() + b"\r\n"
            b"X-Proxied-By: Olla/0.1.0\r\n"
            b"X-Org: acme\r\nX-Team: blue\r\nAuthorization: Bearer sk-own\r\n"
            b"Content-Length: 30\r\n"
            b'\r\n{"model": "m",  "messages":[]}'
        )


async def test_it_answers_with_the_backends_bytes_and_says_what_was_decided(proxy: Proxy) -> None:
    reply = json_reply(OK, headers=[
        (b"X-Mine", b"1"), (b"X-Mine", b"2"), (b"Set-Cookie", b"s=1"), (b"Access-Control-Allow-Origin", b"evil"),
        (b"X-Olla-Endpoint", b"fake"), (b"Strict-Transport-Security", b"max-age=1"), (b"Server", b"demo"),
    ])  # fmt: skip
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url, name="gpu 1", backend_type="vllm", models=["M"])
        answer = await proxy.call("POST", "/olla/proxy/v1/completions", {"model": "m"})
    assert answer.json() == OK
    assert answer.complete
    names = [name.lower() for name, _ in answer.headers]
    assert names.count(b"x-mine") == 2
    assert not {b"set-cookie", b"access-control-allow-origin", b"strict-transport-security"} & set(names)
    expected = {
        "endpoint": "gpu 1", "backend-type": "vllm", "model": "m", "routing-strategy": "strict",
        "routing-decision": "routed", "routing-reason": "model_found",
    }  # fmt: skip
    assert {name: answer.header(f"x-olla-{name}") for name in expected} == expected
    assert re.fullmatch(r"\d+ms", answer.header("x-olla-response-time") or "")
    assert answer.header("content-security-policy") == "sandbox"
    assert answer.header("x-content-type-options") == "nosniff"
    assert len(answer.header("x-olla-request-id") or "") == 32


async def test_it_tries_the_next_endpoint_when_one_refuses_and_keeps_that_one_out(proxy: Proxy) -> None:
    with refused_origin() as origin:
        async with ScriptedBackend(json_reply(OK)) as good:
            bad = await proxy.add(f"http://{origin.authority}", name="a-bad", priority=200)
            await proxy.add(good.url, name="good")
            for _ in range(4):
                answer = await proxy.chat()
                assert (answer.status, answer.header("x-olla-endpoint")) == (200, "good")
            assert live.failures == {bad.pk: 1}


async def test_it_says_who_could_not_be_reached_when_nobody_answers(proxy: Proxy) -> None:
    with refused_origin() as origin:
        await proxy.add(f"http://{origin.authority}", name="gone")
        answer = await proxy.chat()
    assert answer.status == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert answer.json()["olla_context"]["endpoint"] == "gone"
    assert "gone" in answer.json()["error"]["message"]


async def test_it_repeats_an_inference_call_elsewhere_when_the_connection_dies(proxy: Proxy) -> None:
    async with ScriptedBackend(Cut(b"")) as dying, ScriptedBackend(json_reply(OK)) as good:
        await proxy.add(dying.url, name="a-dying", priority=200)
        await proxy.add(good.url, name="b")
        answer = await proxy.chat(messages=["x"])
        assert answer.status == 200
        assert len(dying.requests) + len(good.requests) <= 2
        assert dying.requests == [] or good.requests[0].body == dying.requests[0].body


async def test_it_does_not_repeat_what_may_change_something(proxy: Proxy) -> None:
    async with ScriptedBackend(Cut(b"")) as first, ScriptedBackend(Cut(b"")) as second:
        await proxy.add(first.url, name="a")
        await proxy.add(second.url, name="b")
        answer = await proxy.call("POST", "/olla/openai/v1/things", b"{}")
        assert answer.status == 502
        assert answer.json()["error"]["code"] == "upstream_unreachable"
        assert len(first.requests) + len(second.requests) == 1


async def test_it_sends_once_more_to_the_same_endpoint_when_a_pooled_connection_died(proxy: Proxy) -> None:
    script: list[Step] = [json_reply(OK), Cut(b""), json_reply({"again": True})]
    async with ScriptedBackend(script) as backend:
        endpoint = await proxy.add(backend.url)
        assert (await proxy.chat()).status == 200
        answer = await proxy.chat()
        assert answer.json() == {"again": True}
        assert (len(backend.requests), backend.connections) == (3, 2)
        assert endpoint.pk not in live.failures


async def test_it_does_not_repeat_after_a_first_byte_timeout(proxy: Proxy) -> None:
    async with ScriptedBackend(Silence()) as slow, ScriptedBackend(Silence()) as other:
        await proxy.add(slow.url, name="a", first_byte_timeout=0.3)
        await proxy.add(other.url, name="b", first_byte_timeout=0.3)
        answer = await proxy.chat()
        assert answer.status == 502
        assert answer.json()["error"]["code"] == "upstream_timeout"
        assert len(slow.requests) + len(other.requests) == 1


async def test_it_tries_the_next_endpoint_on_502_503_and_429(proxy: Proxy) -> None:
    for status in (502, 503, 429):
        async with (
            ScriptedBackend(json_reply({"error": "x"}, status)) as busy,
            ScriptedBackend(json_reply(OK)) as good,
        ):
            await proxy.add(busy.url, name=f"busy{status}", models=[f"m{status}"])
            await proxy.add(good.url, name=f"good{status}", models=[f"m{status}"])
            for _ in range(2):
                answer = await proxy.call("POST", "/olla/openai/v1/embeddings", {"model": f"m{status}"})
                assert answer.status == 200
            assert len(busy.requests) >= 1
    await proxy.settled()


async def test_it_passes_on_the_last_backend_answer_when_all_are_busy(proxy: Proxy) -> None:
    busy = json_reply({"error": {"message": "loading"}}, 503, headers=[(b"Retry-After", b"7")])
    with refused_origin() as origin:
        async with ScriptedBackend(busy) as one:
            await proxy.add(one.url, name="one")
            await proxy.add(f"http://{origin.authority}", name="two")
            answer = await proxy.chat()
    assert answer.status == 503
    assert answer.header("retry-after") == "7"
    assert answer.json()["error"] == {"message": "loading"}
    await proxy.settled()


async def test_it_hides_a_small_answer_that_broke_off(proxy: Proxy) -> None:
    cut = Cut(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{"half"')
    async with ScriptedBackend(cut) as bad, ScriptedBackend(json_reply(OK)) as good:
        await proxy.add(bad.url, name="a")
        await proxy.add(good.url, name="b")
        for _ in range(2):
            assert (await proxy.chat()).json() == OK


async def test_it_adds_context_to_a_backends_json_error_and_keeps_its_bytes(proxy: Proxy) -> None:
    text = b'{"error": {"message":"no",  "param":null}}\n'
    reply = Reply(401, [(b"Content-Type", b"application/json")], text)
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url, name="gpu")
        answer = await proxy.chat()
        assert answer.status == 401
        assert answer.body.startswith(b'{"error": {"message":"no",  "param":null},"olla_context":{')
        assert answer.header("content-length") == str(len(answer.body))
        assert answer.json()["olla_context"]["endpoint"] == "gpu"


async def test_it_leaves_other_error_bodies_alone(proxy: Proxy) -> None:
    for number, body in enumerate((b"<h1>no</h1>", b'["error"]', b'{"detail":"no"}', b"", b'{"error":')):
        reply = Reply(404, [(b"Content-Type", b"application/json")], body)
        async with ScriptedBackend(reply) as backend:
            await proxy.add(backend.url, name=f"e{number}", models=[f"m{number}"])
            answer = await proxy.call("POST", "/olla/openai/v1/completions", {"model": f"m{number}"})
            assert (answer.status, answer.body) == (404, body)


async def test_it_passes_a_redirect_on_without_following(proxy: Proxy) -> None:
    reply = Reply(307, [(b"Location", b"http://169.254.169.254/latest")])
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url)
        answer = await proxy.chat()
        assert (answer.status, answer.header("location")) == (307, "http://169.254.169.254/latest")
        assert len(backend.requests) == 1


async def test_it_refuses_a_request_that_has_passed_here_before(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply(OK)) as backend:
        await proxy.add(backend.url)
        via = ("Via", f"1.1 a, 1.1 olla-{installation_id()}")
        answer = await proxy.call("POST", "/olla/openai/v1/completions", {"model": "m"}, headers=[via])
        assert (answer.status, answer.json()["error"]["code"]) == (508, "loop_detected")
        assert backend.requests == []


async def test_it_uploads_multipart_and_binary_bodies_unharmed(proxy: Proxy) -> None:
    blob = bytes(range(256)) * 4096
    form = (
        b'--XyZ\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n" + blob + b"\r\n--XyZ\r\n"
        b'Content-Disposition: form-data; name="model"\r\n\r\nm\r\n--XyZ--\r\n'
    )
    async with ScriptedBackend(json_reply({"text": "hi"})) as backend:
        await proxy.add(backend.url)
        kind = [("Content-Type", "multipart/form-data; boundary=XyZ")]
        answer = await proxy.call("POST", "/olla/openai/v1/audio/transcriptions", form, headers=kind)
        assert (answer.status, answer.header("x-olla-model")) == (200, "m")
        assert backend.requests[0].body == form
        assert backend.requests[0].header("content-type") == "multipart/form-data; boundary=XyZ"


async def test_it_answers_unknown_things_with_the_errors_of_the_table(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply(OK)) as backend:
        await proxy.add(backend.url)
        cases = [
            ("POST", "/olla/nonsense/v1/chat/completions", {"model": "m"}, 404, "unknown_provider"),
            ("POST", "/olla/vllm/v1/chat/completions", {"model": "m"}, 404, "no_endpoints"),
            ("POST", "/olla/openai/v1/chat/completions", {"model": "x"}, 404, "model_not_found"),
            ("POST", "/olla/openai/v1/chat/completions", b"", 400, "invalid_json"),
            ("POST", "/olla/openai/v1/chat/completions", b"{oops", 400, "invalid_json"),
            ("POST", "/olla/openai/v1/chat/completions", b'{"model":"m","MODEL":"x"}', 400, "ambiguous_model"),
            ("GET", "/olla/openai/../admin/", b"", 400, "invalid_request"),
            ("GET", "/olla/openai/%2e%2E/admin/", b"", 400, "invalid_request"),
            ("GET", "/olla/openai/a%2f..%2fadmin", b"", 400, "invalid_request"),
            ("GET", "/olla/openai/a%00b", b"", 400, "invalid_request"),
            ("POST", "/olla/openai%2Fv1/embeddings", {"model": "m"}, 400, "invalid_request"),
            ("POST", "/olla/openai/api/pull", {"model": "m"}, 403, "forbidden_path"),
            ("DELETE", "/olla/models", b"", 405, "method_not_allowed"),
            ("GET", "/olla/models/none/such", b"", 404, "model_not_found"),
            ("GET", "/internal/secret", b"", 404, "not_found"),
        ]  # fmt: skip
        for method, path, body, status, code in cases:
            answer = await proxy.call(method, path, body)
            assert (path, answer.status, answer.json()["error"]["code"]) == (path, status, code)
            assert answer.header("x-olla-request-id")
        assert backend.requests == []


async def test_it_gives_ollama_clients_the_error_string_they_read(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply(OK)) as backend:
        await proxy.add(backend.url, backend_type="ollama")
        missing = await proxy.call("POST", "/olla/ollama/api/chat", {"model": "none"})
        assert missing.status == 404
        assert isinstance(missing.json()["error"], str)
        pull = await proxy.call("POST", "/olla/ollama/api/pull", {"model": "m"})
        assert pull.status == 501
        assert backend.requests == []


async def test_it_tells_a_down_model_from_an_unknown_one(proxy: Proxy) -> None:
    await proxy.add("http://127.0.0.1:9", name="down", status="offline")
    down = await proxy.chat()
    assert (down.status, down.json()["error"]["code"]) == (503, "model_unavailable")
    assert down.header("x-olla-routing-reason") == "model_unavailable"
    none = await proxy.call("GET", "/olla/openai/health")
    assert (none.status, none.json()["error"]["code"]) == (503, "no_healthy_endpoints")


async def test_it_lists_models_as_openai_and_ollama_clients_read_them(proxy: Proxy) -> None:
    await proxy.add("http://127.0.0.1:9", name="a", models=["org/M-1", "both"])
    await proxy.add("http://127.0.0.1:9", name="b", backend_type="ollama", models=["both", "llama3:8b"])
    await proxy.add("http://127.0.0.1:9", name="c", models=["hidden"], status="offline")
    listed = await proxy.call("GET", "/olla/openai/v1/models")
    assert [each["id"] for each in listed.json()["data"]] == ["both", "llama3:8b", "org/M-1"]
    assert set(listed.json()["data"][0]) == {"id", "object", "created", "owned_by", "permission", "root", "parent"}
    one = await proxy.call("GET", "/olla/proxy/v1/models/org/M-1")
    assert one.json()["id"] == "org/M-1"
    tags = await proxy.call("GET", "/olla/ollama/api/tags")
    assert [each["name"] for each in tags.json()["models"]] == ["both", "llama3:8b"]
    unified = await proxy.call("GET", "/olla/models")
    assert len(unified.json()["data"]) == 3
    everything = await proxy.call("GET", "/olla/models", query=b"include_unavailable=true")
    assert len(everything.json()["data"]) == 4


async def test_it_answers_preflights_for_whatever_an_sdk_sends(proxy: Proxy) -> None:
    answer = await proxy.call("OPTIONS", "/olla/openai/v1/chat/completions", headers=[
        ("Origin", "http://app.example"), ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,x-stainless-os"),
    ])  # fmt: skip
    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == "*"
    assert "x-stainless-os" in (answer.header("access-control-allow-headers") or "")
    assert answer.header("access-control-allow-credentials") is None
    plain = await proxy.call("GET", "/olla/models/none", headers=[("Origin", "http://app.example")])
    assert plain.header("access-control-allow-origin") == "*"
    assert "X-Olla-Endpoint" in (plain.header("access-control-expose-headers") or "")
    assert json.loads(plain.body)["error"]["code"] == "model_not_found"
