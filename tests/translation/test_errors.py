"""Errors of backends, and of this package, as Anthropic clients read them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.translation.sizes import sized
from translation.errors import (
    TranslationError,
    build_envelope,
    build_error,
    build_error_answer,
    choose_kind,
    parse_backend_error,
    refuses_stream_options,
)
from translation.overflow import OverflowFacts, build_overflow_message, describe_overflow


def mapped(status: int, body: bytes = b"", **how):
    return build_error(status, body, request_id="req_1", **how)


def message_of(body: bytes, status: int = 400) -> str:
    return mapped(status, body).message


@pytest.mark.parametrize(
    ("status", "shown", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 401, "authentication_error"),
        (402, 402, "billing_error"),
        (403, 403, "permission_error"),
        (404, 404, "not_found_error"),
        (405, 405, "invalid_request_error"),
        (408, 408, "timeout_error"),
        (409, 409, "conflict_error"),
        (413, 413, "request_too_large"),
        (415, 415, "invalid_request_error"),
        (422, 400, "invalid_request_error"),
        (429, 429, "rate_limit_error"),
        (499, 499, "invalid_request_error"),
        (500, 500, "api_error"),
        (502, 502, "api_error"),
        (503, 503, "api_error"),
        (504, 504, "timeout_error"),
        (529, 529, "overloaded_error"),
        (302, 502, "api_error"),
        (200, 502, "api_error"),
        (600, 502, "api_error"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"plain", b"<html>x</html>", b'{"error":{"message":"m"}}', b"\xff\x00"])
def test_it_maps_the_status(status, shown, kind, body):
    answer = mapped(status, body)
    envelope = json.loads(answer.body)
    assert (answer.status, answer.kind) == (shown, kind)
    assert envelope["type"] == "error"
    assert envelope["error"]["type"] == kind
    assert envelope["error"]["message"]
    assert envelope["request_id"] == "req_1"
    assert (b"content-type", b"application/json") in answer.headers
    assert (b"request-id", b"req_1") in answer.headers


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"M","type":"t","param":"p"}}', "M"),
        (b'{"error":{"message":"M","code":"model_broken"}}', "M (code: model_broken)"),
        (b'{"error":{"message":"M model_broken","code":"model_broken"}}', "M model_broken"),
        (b'{"error":{"message":"M","code":400}}', "M"),
        (b'{"error":{"message":"M","code":1234}}', "M (code: 1234)"),
        (b'{"error":{"message":"M","code":true}}', "M"),
        (b'{"error":"text"}', "text"),
        (b'{"message":"M"}', "M"),
        (b'{"detail":"D"}', "D"),
        (b'{"detail":[{"loc":["body","x"],"msg":"bad"},{"msg":"worse"},"odd",5]}', "body.x: bad; worse; odd"),
        (b'{"object":"error","message":"M","type":"BadRequestError"}', "M"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"M"}}', "M"),
        (b'{"error":{},"message":"M"}', "M"),
        (b'{"error":5,"message":"M"}', "M"),
        (b'"just text"', "just text"),
        (b"plain text", "plain text"),
        (b"x" * 500, "x" * 300),
        (b"<!doctype html><p>oops", "The backend answered with status 400."),
        (b"\x00\x01", "The backend answered with status 400."),
        (b"", "The backend answered with status 400."),
        (b"{}", "The backend answered with status 400."),
        (b"[5]", "The backend answered with status 400."),
        (b'{"error":{"message":["x"]}}', "x"),
        (b'{"error":{"msg":"M"}}', "M"),
    ],
)
def test_it_finds_the_message_in_any_shape(body, message):
    assert message_of(body) == message


def test_it_bounds_a_message_that_repeats_the_prompt():
    body = json.dumps({"error": {"message": "x" * 100_000}}).encode()
    assert len(message_of(body)) == 4000
    assert len(message_of(json.dumps({"error": "x" * 100_000}).encode())) == 4000


def test_it_keeps_the_kind_of_an_anthropic_shaped_error():
    answer = mapped(500, b'{"type":"error","error":{"type":"overloaded_error","message":"M"}}')
    assert (answer.status, answer.kind) == (500, "overloaded_error")


def test_it_keeps_headers_that_clients_retry_by():
    headers = [
        (b"Retry-After", b"7"),
        (b"retry-after-ms", b"700"),
        (b"X-RateLimit-Remaining", b"0"),
        (b"anthropic-ratelimit-reset", b"x"),
        (b"server", b"uvicorn"),
        (b"set-cookie", b"a=b"),
    ]
    kept = mapped(429, b"", headers=headers).headers[2:]
    assert kept == (
        (b"retry-after", b"7"),
        (b"retry-after-ms", b"700"),
        (b"x-ratelimit-remaining", b"0"),
        (b"anthropic-ratelimit-reset", b"x"),
    )


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (501, [], [b"false"]),
        (508, [], [b"false"]),
        (500, [], []),
        (501, [(b"x-should-retry", b"true")], [b"true"]),
    ],
)
def test_it_tells_clients_not_to_retry_what_cannot_succeed(status, headers, expected):
    answer = mapped(status, b"", headers=headers)
    assert [value for name, value in answer.headers if name == b"x-should-retry"] == expected


def test_it_builds_the_answer_of_its_own_refusals():
    error = TranslationError("must be a string", path="messages[0].content")
    answer = build_error_answer(error, request_id="r")
    assert answer.status == 400
    assert json.loads(answer.body)["error"] == {
        "type": "invalid_request_error",
        "message": "messages[0].content: must be a string",
    }


def test_it_leaves_an_empty_request_id_out():
    assert b"request_id" not in build_envelope(TranslationError("x"))


def test_it_knows_kinds_for_its_own_statuses():
    assert [choose_kind(status) for status in (418, 507)] == ["invalid_request_error", "api_error"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b"unknown field stream_options", True),
        (422, b'{"detail":"stream_options"}', True),
        (400, b"other", False),
        (500, b"stream_options", False),
    ],
)
def test_it_knows_a_backend_that_refuses_stream_options(status, body, expected):
    assert refuses_stream_options(status, body) is expected


@sized
@given(st.binary(max_size=200), st.integers(100, 700))
def test_it_never_fails_on_any_body(body, status):
    json.loads(mapped(status, body).body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "detail", "code", "type", "msg", "loc"]), inner)
    ),
    max_leaves=8,
)


@sized
@given(json_values, st.integers(400, 599))
def test_it_never_fails_on_any_json(value, status):
    json.loads(mapped(status, json.dumps(value).encode()).body)


# ---- context overflow

LIMIT = "This model's maximum context length is 8192 tokens. "
BOTH = "input length and `max_tokens` exceed context limit: {} + {} > {}"
LONG = "prompt is too long: {} tokens > {} maximum"
OVERFLOWS = [
    (LIMIT + "However, your messages resulted in 9001 tokens.", LONG.format(9001, 8192)),
    (
        LIMIT + "However, you requested 9000 tokens (8000 in the messages, 1000 in the completion).",
        BOTH.format(8000, 1000, 8192),
    ),
    (
        LIMIT + "However, you requested 32000 output tokens and your prompt contains at least 769 input tokens, "
        "for a total of at least 32769 tokens.",
        BOTH.format(769, 32000, 8192),
    ),
    (LIMIT + "However, your request has 9500 input tokens.", LONG.format(9500, 8192)),
    (
        "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 8192 "
        "tokens and your request has 100 input tokens (32000 > 8192 - 100).",
        BOTH.format(100, 32000, 8192),
    ),
    ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", LONG.format(5000, 4096)),
    (
        "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total "
        "of 9192 tokens: 8000 tokens from the input messages and 1192 tokens for the completion.",
        BOTH.format(8000, 1192, 8192),
    ),
    ("The input (9000 tokens) is longer than the model's context length (8192 tokens).", LONG.format(9000, 8192)),
    ("request (5000 tokens) exceeds the available context size (4096 tokens)", LONG.format(5000, 4096)),
    (
        "Input tokens exceed the configured limit of 100 tokens. Your messages resulted in 300 tokens.",
        LONG.format(300, 100),
    ),
    ("Requested tokens (2285) exceed context window of 2048", BOTH.format(1785, 500, 2048)),
    ("Prompt too long: 32799 tokens exceeds max context window of 32768 tokens", LONG.format(32799, 32768)),
    ("Input length (265330) exceeds model's maximum context length (262144).", LONG.format(265330, 262144)),
    ("The input token count (1196) exceeds the maximum number of tokens allowed (1048)", LONG.format(1196, 1048)),
    ("This model's maximum prompt length is 131 but the request contains 537 tokens", LONG.format(537, 131)),
    (
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with "
        "context length of only 4096 tokens",
        LONG.format(5000, 4096),
    ),
    ("prompt is too long: 210000 tokens > 200000 maximum", LONG.format(210000, 200000)),
    (
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input",
        BOTH.format(190000, 20000, 200000),
    ),
    (
        "the input length exceeds the context length",
        "prompt is too long: the input length exceeds the context length",
    ),
]


@pytest.mark.parametrize(("wording", "expected"), OVERFLOWS)
def test_it_rewords_a_context_overflow(wording, expected):
    facts = OverflowFacts(input_tokens=7777, max_tokens=500)
    answer = mapped(500, json.dumps({"error": {"message": wording}}).encode(), facts=facts)
    assert answer.message.startswith(expected)
    assert (answer.status, answer.kind) == (400, "invalid_request_error")


def test_it_reads_the_numbers_llamacpp_sends_beside_the_text():
    error = {
        "code": 400,
        "message": "the request exceeds the available context size",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 5000,
        "n_ctx": 4096,
    }
    body = json.dumps({"error": error}).encode()
    assert message_of(body) == LONG.format(5000, 4096)
    assert parse_backend_error(body).context_length == 4096


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (OverflowFacts(4000, 500, 4096), BOTH.format(4000, 500, 4096)),
        (OverflowFacts(4000, 50, 4096), LONG.format(4097, 4096)),
        (OverflowFacts(5000, 50, 4096), LONG.format(5000, 4096)),
    ],
)
def test_it_fills_in_what_is_known_of_the_request(facts, expected):
    found = describe_overflow(400, "too big", ("context_length_exceeded",), facts)
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("total", "expected"), [(9000, BOTH.format(8000, 1000, 8192)), (900, BOTH.format(8100, 1000, 8192))]
)
def test_it_derives_the_prompt_from_the_total(total, expected):
    text = LIMIT + f"However, you requested {total} tokens."
    assert describe_overflow(400, text, (), OverflowFacts(8100, 1000)).startswith(expected)


def test_it_trusts_a_counted_prompt_more_than_a_total():
    text = LIMIT + "However, you requested 9000 tokens."
    found = describe_overflow(400, text, (), OverflowFacts(8100, 1000, counted=True))
    assert found.startswith(BOTH.format(8100, 1000, 8192))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, LIMIT),
        (404, LIMIT),
        (429, "maximum context length reached for your tier"),
        (200, LIMIT),
        (400, "max_tokens must be at least 1"),
        (400, "The model `x` does not exist"),
        (400, "temperature exceeds 2"),
        (500, "CUDA out of memory"),
    ],
)
def test_it_leaves_other_failures_alone(status, message):
    assert describe_overflow(status, message, (), OverflowFacts()) == ""


def test_it_never_claims_that_a_prompt_fits():
    assert build_overflow_message(10, 5, 100) == "prompt is too long: 101 tokens > 100 maximum"
