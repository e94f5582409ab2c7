"""What a request asks for: its path and what its body says. Hostile spellings included."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ErrorCode, OllaError
from proxy.expansion import FREE_EXPANSION
from proxy.inbound import (
    INFERENCE,
    MOST_EXACT_BYTES,
    MOST_PATH_BYTES,
    BodyFacts,
    RawHeaders,
    get_header,
    join_target,
    parse_body,
    parse_target,
)
from tests.proxy.builders import make_inbound, outcome_of

CHAT = b'{"model": "llama3", "messages": []}'
CLEAN_TARGET = re.compile(r"[!$&'()*+,;=:@\-._~A-Za-z0-9/%]+")


def parse(body: bytes, *headers: tuple[bytes, bytes], inference: bool = True, limit: int = 2**20) -> BodyFacts:
    return parse_body(body, list(headers), inference=inference, limit=limit)


def refusal(body: bytes, *headers: tuple[bytes, bytes], **options: Any) -> ErrorCode:
    with pytest.raises(OllaError) as caught:
        parse(body, *headers, **options)
    return caught.value.code


# Paths


@pytest.mark.parametrize(
    ("sent", "base", "kept", "replaced"),
    [
        ("/chat/completions", "/api/v1", "/api/v1/chat/completions", "/chat/completions"),
        ("//double//slashes//", "/api/v1", "/api/v1/double/slashes", "//double//slashes//"),
        ("", "/api/v1", "/api/v1", "/"),
        ("/", "/api/v1", "/api/v1", "/"),
        ("/path%20with%20spaces", "/api/v1", "/api/v1/path%20with%20spaces", "/path%20with%20spaces"),
        ("/a%2Fb", "/api/v1", "/api/v1/a/b", "/a/b"),
        ("/v1/chat/completions", "/api/v1", "/api/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/models", "", "/v1/models", "/v1/models"),
        ("/chat", "/engines/llama.cpp", "/engines/llama.cpp/chat", "/chat"),
    ],
)
def test_it_joins_paths_as_specified(sent: str, base: str, kept: str, replaced: str) -> None:
    path, _ = parse_target(sent.encode())
    assert join_target(base, path, preserve=True) == kept
    assert join_target(base, path, preserve=False) == replaced


@pytest.mark.parametrize(
    "sent",
    [
        "/../../../etc/passwd", "/..", "/.", "/./x", "/a/./b", "/a/../b", "/%2e%2e/x", "/%2E./x", "/.%2e/x",
        "/..%2fx", "/a%2f..%2fb", "/..%5cx", "/a%5c..%5cb", "/a\\..\\b", "/%252e%252e/x", "/%25252e%25252e/x",
        "/..%252fx", "/a%252f..%252fb", "/%25252525252e%2e/..", "/..;/x", "/..;a=b/x", "/..%3bx/y", "/..%20/x",
        "/%20../x", "/..%3f/x", "/..%23/x", "..", "/a/..", "/a/%2e",
    ],
)  # fmt: skip
def test_it_refuses_dot_segments_in_every_spelling(sent: str) -> None:
    with pytest.raises(OllaError) as caught:
        parse_target(sent.encode())
    assert caught.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    "sent", ["/...", "/.well-known/x", "/a..b", "/..a", "/a.", "/v1.0/x", "/%252525252525252e"]
)
def test_it_leaves_dots_that_are_no_segments(sent: str) -> None:
    path, _ = parse_target(sent.encode())
    assert path == sent.replace("%", "%25") if "%" not in sent else path.startswith("/")


@pytest.mark.parametrize("sent", ["/a%00", "/a%0d%0aX: y", "/%7f", "/%1f", "/a\x00b"])
def test_it_refuses_control_characters(sent: str) -> None:
    with pytest.raises(OllaError):
        parse_target(sent.encode())


def test_it_refuses_a_path_nobody_needs() -> None:
    assert parse_target(b"/" + b"a" * (MOST_PATH_BYTES - 1))
    with pytest.raises(OllaError):
        parse_target(b"/" + b"a" * MOST_PATH_BYTES)


@pytest.mark.parametrize(
    ("sent", "path", "decoded"),
    [
        (b"/v1/m\xc3\xa9", "/v1/m%C3%A9", "/v1/mé"),
        (b"/v1/m%c3%a9", "/v1/m%C3%A9", "/v1/mé"),
        (b"/%ff", "/%FF", "/\ufffd"),
        (b"/a%3Fb%23c", "/a%3Fb%23c", "/a?b#c"),
        (b"/%zz%", "/%25zz%25", "/%zz%"),
        (b"/100%25", "/100%25", "/100%"),
        (b"/models/meta%2Fllama:8b@sha", "/models/meta/llama:8b@sha", "/models/meta/llama:8b@sha"),
    ],
)
def test_it_gives_every_byte_one_spelling(sent: bytes, path: str, decoded: str) -> None:
    assert parse_target(sent) == (path, decoded)


def climbs_out(path: str) -> bool:
    """Whether resolving a path as a careless server would goes above its start at any point."""
    depth = 0
    for part in re.split(r"[/\\]", path):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


pieces = st.sampled_from(
    [b"..", b".", b"/", b"\\", b"%2e", b"%2E", b"%2f", b"%5c", b"%252e", b"%252f", b"%25", b"%00", b";", b"a",
     b" ", b"%c0%ae", b"\xff", b"?", b"#", b"%3f", b"%23", b"//", b"\xc3\xa9", b"%", b"%0a"]
)  # fmt: skip


@given(st.one_of(st.binary(max_size=60), st.lists(pieces, max_size=12).map(b"".join)))
def test_it_never_leaves_the_base(raw: bytes) -> None:
    outcome = outcome_of(lambda: parse_target(raw))
    if isinstance(outcome, OllaError):
        assert outcome.code is ErrorCode.INVALID_REQUEST
        return
    path, decoded = outcome
    assert not climbs_out(decoded)
    for preserve in (True, False):
        sent = join_target("/base/v1", path, preserve=preserve)
        assert CLEAN_TARGET.fullmatch(sent)
        assert not preserve or sent == "/base/v1" or sent.startswith("/base/v1/")


INFERENCE_PATHS = [
    "/v1/chat/completions", "/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
    "/v1/messages", "/messages", "/anthropic/v1/messages", "/v1/messages/count_tokens", "/api/generate",
    "/api/chat", "/api/embed", "/api/embeddings", "/api/v0/chat/completions", "/api/v1/chat", "/completion",
    "/embedding", "/tokenize", "/detokenize", "/v1/tokenize", "/infill", "/rerank", "/v1/rerank", "/v2/rerank",
    "/api/v1/reranking", "/score", "/classify", "/pooling", "/generate", "/encode", "/v1/encode",
    "/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/audio/speech",
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/moderations", "/v1/chat/completions/vision",
    "/engines/llama.cpp/v1/chat/completions", "/v1/chat/completions/", "/apply-template",
]  # fmt: skip


@pytest.mark.parametrize("path", INFERENCE_PATHS)
def test_it_knows_the_calls_that_only_compute(path: str) -> None:
    assert INFERENCE.search(path)
    assert make_inbound(path).is_inference
    assert not make_inbound(path, method="GET").is_inference


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1/models", "/v1/files", "/v1/threads/t1/messages", "/v1/batches", "/api/pull",
        "/v1/responses/r1/cancel", "/v1/chat/completions/c1", "/xchat/completionsx",
        "/v1/fine_tuning/jobs", "/v1/chat/completions\n",
    ],
)  # fmt: skip
def test_it_knows_calls_that_change_things(path: str) -> None:
    assert not INFERENCE.search(path)


def test_it_knows_the_model_of_a_request() -> None:
    assert make_inbound(body=CHAT).model == "llama3"


def test_it_finds_the_first_header_of_a_name() -> None:
    headers: RawHeaders = [(b"a", b"1"), (b"b", b"2"), (b"b", b"3")]
    assert get_header(headers, b"b") == b"2"
    assert get_header(headers, b"c") is None


# JSON bodies


@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"text/plain", b"", b"application/x-www-form-urlencoded", b"multipart/form-data",
     b"multipart/form-data; boundary=x", b"application/octet-stream"],
)  # fmt: skip
def test_it_reads_json_whatever_the_content_type(content_type: bytes) -> None:
    facts = parse(CHAT, (b"content-type", content_type))
    assert facts.model == "llama3"
    assert facts.is_json


@pytest.mark.parametrize(
    ("value", "model"),
    [
        ('"Qwen/Qwen2.5"', "Qwen/Qwen2.5"), ('"  llama3:8b\\n"', "llama3:8b"), ('"\\u0067pt"', "gpt"),
        ('""', None), ('"   "', None), ("null", None), ("7", None), ("[]", None), ('["a"]', None), ("true", None),
        ('{"a": 1}', None), ("1e999", None),
    ],
)  # fmt: skip
def test_it_takes_a_model_only_when_it_is_text(value: str, model: str | None) -> None:
    assert parse(b'{"model": %b}' % value.encode()).model == model


@pytest.mark.parametrize("key", ["model", "Model", "MODEL", "mOdEl", "\\u006dodel", "mode\\u006C"])
def test_it_reads_the_model_key_in_any_spelling(key: str) -> None:
    assert parse(b'{"%b": "llama3"}' % key.encode()).model == "llama3"


@pytest.mark.parametrize(
    ("text", "stream"), [("true", True), ("false", False), ('"true"', None), ("1", None), ("null", None)]
)
def test_it_reads_the_stream_flag(text: str, stream: bool | None) -> None:
    assert parse(b'{"stream": %b}' % text.encode()).stream is stream


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "a", "model": "b"}', b'{"model": "a", "Model": "b"}', b'{"MODEL": 1, "model": null}',
        b'{"model": "a", "\\u006dodel": "b"}', b'{"\\u006dodel": "a", "model": "b"}',
        b'{"model": "a", "mod\\u0065l": "a"}', b'{"model":"a","x":"\\u0041","model":"b"}',
        b'{"model": "a", "tools": [{"model": 1}], "model": "b"}',
        b'{"model":"a","model":"b","n":' + b"1" * 5000 + b"}",
        b'{"model": "a", "model": "b", "x": "\xff"}',
        b'{"model": "a", "model" : "b", "deep": ' + b"[" * 200 + b"]" * 200 + b"}",
    ],
)  # fmt: skip
def test_it_refuses_a_body_that_names_its_model_twice(body: bytes) -> None:
    assert refusal(body) is ErrorCode.AMBIGUOUS_MODEL
    assert refusal(body, inference=False) is ErrorCode.AMBIGUOUS_MODEL


@pytest.mark.parametrize(
    "rest",
    [
        '"tools": [{"function": {"parameters": {"properties": {"model": {"type": "string"}}}}}]',
        '"messages": [{"role": "user", "content": "my \\"model\\": is"}, {"model": "x", "Model": "y"}]',
        '"tools": [{"model": 1}], "tools": []',
        '"x\\"model": 1',
        '"type": "model", "kind": "MODEL"',
        '"note": "\\u0041\\u006d\\u004F and \\u00e9"',
    ],
)
def test_it_does_not_mistake_other_uses_of_the_word(rest: str) -> None:
    assert parse(b'{"model": "llama3", %b}' % rest.encode()).model == "llama3"


def test_it_refuses_to_parse_a_large_body_in_full_for_a_doubtful_key() -> None:
    large = b"[]," * (MOST_EXACT_BYTES // 3) + b"[]"
    assert parse(b'{"model": "a", "x": [%b]}' % large).model == "a"
    assert refusal(b'{"model": "a", "x": [%b, "\\u006d"]}' % large, limit=0) is ErrorCode.AMBIGUOUS_MODEL


def test_it_finds_the_model_behind_a_large_body() -> None:
    body = b'{"messages": [{"content": "%b"}], "model": "late"}' % (b"x" * 5_000_000)
    assert parse(body).model == "late"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"   \n", b"null", b"[]", b'"text"', b"7", b"model=llama3", b"{", b'{"model"', b'{"model": "a"} x',
        b'{"a": NaN}', b'{"model": "a",}', b"{'model': 'a'}", b'{"a\xff": 1}', b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"\\ud800": 1}', b'{"a": "\\ud800"}', b'{"a": "\n"}', '{"model": "a"}'.encode("utf-16"),
        '{"model": "a"}'.encode("utf-16-le"), '{"model": "a"}'.encode("utf-32"), b"\x1f\x8b\x08 not gzip",
    ],
)  # fmt: skip
def test_it_refuses_what_is_no_json_object_on_inference_paths_only(body: bytes) -> None:
    assert refusal(body) is ErrorCode.INVALID_JSON
    assert parse(body, inference=False) == BodyFacts()


@pytest.mark.parametrize("body", [b'{"model": "\xff"}', b'{"model": "a", "stream": "\xff"}'])
def test_it_leaves_bytes_that_are_no_utf8_to_the_backend(body: bytes) -> None:
    assert parse(body).stream is None


def test_it_reads_a_body_with_a_byte_order_mark() -> None:
    assert parse(b"\xef\xbb\xbf" + CHAT).model == "llama3"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.one_of(st.binary(max_size=80), json_values.map(lambda value: json.dumps(value).encode())), st.booleans())
def test_it_raises_nothing_but_its_own_errors(body: bytes, inference: bool) -> None:
    for encoding in (b"gzip", b"deflate", b"br", b""):
        outcome = outcome_of(lambda: parse(body, (b"content-encoding", encoding), inference=inference))  # noqa: B023
        assert isinstance(outcome, BodyFacts) or outcome.status in (400, 415)


keys = st.sampled_from(["model", "Model", "\\u006dodel", "mod\\u0045l", "models", 'x\\"model', "tools", "a"])
values = st.sampled_from(['"m"', "1", '{"model": 1}', '[{"MODEL": {}}]', '"\\"model\\":"', '"model"', '"\\u004d"'])


@given(st.lists(st.tuples(keys, values), max_size=6))
def test_it_agrees_with_an_exact_reading_of_the_keys(pairs: list[tuple[str, str]]) -> None:
    text = "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"
    found = [k for k, _ in json.loads(text, object_pairs_hook=list) if k.lower() == "model"] if pairs else []
    outcome = outcome_of(lambda: parse(text.encode()))
    if len(found) > 1:
        assert outcome.code is ErrorCode.AMBIGUOUS_MODEL
    else:
        assert outcome.is_json


# Compressed bodies

GZIP = (b"content-encoding", b"gzip")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(CHAT, mtime=0)),
        (b" GZip ", gzip.compress(CHAT, mtime=0)),
        (b"x-gzip", gzip.compress(CHAT, mtime=0)),
        (b"identity, gzip", gzip.compress(CHAT, mtime=0)),
        (b"deflate", zlib.compress(CHAT)),
        (b"deflate", zlib.compress(CHAT, wbits=-15)),
        (b"gzip", gzip.compress(CHAT[:9], mtime=0) + gzip.compress(CHAT[9:], mtime=0)),
        (b"gzip", gzip.compress(b" ", mtime=0) + gzip.compress(CHAT, mtime=0) + b"\0\0"),
        (b"gzip", CHAT),
        (b"identity", CHAT),
        (b"utf-8", CHAT),
        (b"br", CHAT),
    ],
)
def test_it_reads_a_body_whatever_its_coding_is_said_to_be(encoding: bytes, body: bytes) -> None:
    assert parse(body, (b"content-encoding", encoding)).model == "llama3"


def test_it_joins_several_content_encoding_headers() -> None:
    assert parse(gzip.compress(CHAT, mtime=0), (b"content-encoding", b"identity"), GZIP).model == "llama3"


@pytest.mark.parametrize(
    "body",
    [b"\x1f\x8b\x08", b"not gzip", gzip.compress(CHAT, mtime=0)[:-9], gzip.compress(CHAT, mtime=0) + b"trailing",
     gzip.compress(CHAT, mtime=0) + gzip.compress(CHAT, mtime=0)[:-9]],
)  # fmt: skip
def test_it_refuses_broken_compression_on_inference_paths_only(body: bytes) -> None:
    assert refusal(body, GZIP) is ErrorCode.INVALID_REQUEST
    assert parse(body, GZIP, inference=False) == BodyFacts()


@pytest.mark.parametrize(
    "body", [gzip.compress(b"", mtime=0), gzip.compress(b"[1]", mtime=0), gzip.compress(b"{", mtime=0)]
)
def test_it_refuses_compressed_bodies_that_are_no_json(body: bytes) -> None:
    assert refusal(body, GZIP) is ErrorCode.INVALID_JSON
    assert parse(body, GZIP, inference=False) == BodyFacts()


@pytest.mark.parametrize("coding", [b"zstd", b"br", b"compress", b"gzip, br"])
def test_it_refuses_codings_it_cannot_read_on_inference_paths_only(coding: bytes) -> None:
    header = (b"content-encoding", coding)
    assert parse(b"\x28\xb5\x2f\xfd...", header, inference=False) == BodyFacts()
    with pytest.raises(OllaError) as refused:
        parse(b"\x28\xb5\x2f\xfd...", header)
    assert (refused.value.code, refused.value.status) == (ErrorCode.INVALID_REQUEST, 415)
    assert f"compressed with {coding.decode()} " in refused.value.message
    assert refused.value.headers == ((b"Accept-Encoding", b"gzip, deflate"),)


def test_it_keeps_no_fields_of_a_compressed_body() -> None:
    assert "model" in parse(CHAT).fields
    assert parse(gzip.compress(CHAT, mtime=0), GZIP).fields == {}


def test_it_refuses_a_body_that_expands_over_the_limit() -> None:
    bomb = gzip.compress(b'{"model": "a", "x": "%b"}' % (b"x" * 4096), mtime=0)
    assert parse(bomb, GZIP, limit=8192).model == "a"
    assert refusal(bomb, GZIP, limit=4096) is ErrorCode.REQUEST_TOO_LARGE
    assert refusal(bomb, GZIP, limit=4096, inference=False) is ErrorCode.REQUEST_TOO_LARGE
    halves = gzip.compress(b" " * 3000, mtime=0) + gzip.compress(b" " * 3000, mtime=0)
    assert refusal(halves, GZIP, limit=4096) is ErrorCode.REQUEST_TOO_LARGE


def test_it_refuses_a_bomb_even_without_a_limit() -> None:
    bomb = gzip.compress(b" " * (FREE_EXPANSION + 1), mtime=0)
    assert len(bomb) < FREE_EXPANSION / 500
    assert refusal(bomb, GZIP, limit=0) is ErrorCode.REQUEST_TOO_LARGE
