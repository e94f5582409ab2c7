"""Every code has its status, and every client the shape it reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from proxy.errors import (
    STATUSES,
    ErrorCode,
    ErrorShape,
    OllaError,
    build_context,
    build_error_body,
    choose_shape,
    error_type,
)

ERROR = OllaError(ErrorCode.MODEL_NOT_FOUND, "No such model.", endpoint="gpu-1")


def test_it_has_a_status_for_every_code() -> None:
    assert set(STATUSES) == set(ErrorCode)
    assert all(400 <= status < 600 for status in STATUSES.values())


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ("invalid_request invalid_json ambiguous_model invalid_host", 400), ("invalid_key", 401),
        ("forbidden_path forbidden_by_rule", 403), ("unknown_provider no_endpoints model_not_found not_found",
        404),
        ("request_timeout", 408), ("request_too_large", 413), ("rate_limited", 429), ("headers_too_large", 431),
        ("internal_error", 500), ("not_supported", 501),
        ("upstream_unreachable upstream_timeout upstream_invalid", 502),
        ("model_unavailable no_healthy_endpoints queue_full draining overloaded", 503), ("loop_detected", 508),
    ],
)  # fmt: skip
def test_it_answers_each_code_with_its_status(codes: str, status: int) -> None:
    for code in codes.split():
        assert OllaError(ErrorCode(code), "x").status == status


def test_it_lets_one_error_have_another_status() -> None:
    error = OllaError(ErrorCode.NOT_FOUND, "x", status=410, headers=((b"A", b"b"),))
    assert (error.status, error.headers, str(error)) == (410, ((b"A", b"b"),), "x")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
     (408, "invalid_request_error"),
     (404, "not_found_error"), (429, "rate_limit_error"), (500, "api_error"), (503, "api_error")],
)  # fmt: skip
def test_it_names_the_type_as_openai_does(status: int, kind: str) -> None:
    assert error_type(status) == kind


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/olla/ollama/api/chat", "ollama"), ("/olla/OLLAMA/api/tags", "ollama"), ("/olla/proxy/api/generate",
        "ollama"),
        ("/olla/ollama/api", "ollama"), ("/olla/ollama/api/v1/x", "ollama"), ("/olla/proxy/api/v1/chat", "openai"),
        ("/olla/proxy/api/v0/models", "openai"), ("/olla/proxy/api", "ollama"),
        ("/olla/ollama/v1/chat/completions", "openai"),
        ("/olla/lmstudio/api/v0/models", "openai"), ("/olla/lemonade/api/v1/load", "openai"),
        ("/olla/anthropic/v1/messages", "anthropic"), ("/olla/Anthropic/v1/messages", "anthropic"),
        ("/olla/anthropic", "anthropic"), ("/olla/anthropics/v1", "openai"), ("/olla/models", "openai"),
        ("/ollama/api/chat", "openai"), ("/internal/health", "openai"), ("/", "openai"), ("", "openai"),
        ("/x/proxy/api/chat", "openai"), ("/olla/ollama/apix", "openai"),
    ],
)  # fmt: skip
def test_it_chooses_the_shape_by_the_path(path: str, shape: str) -> None:
    assert choose_shape(path) == shape


def test_it_writes_openais_object() -> None:
    body = json.loads(build_error_body(ERROR, "r1"))
    assert body["error"] == {"message": "No such model.", "type": "not_found_error", "code": "model_not_found"}
    assert body["olla_context"]["endpoint"] == "gpu-1"
    assert body["olla_context"]["request_id"] == "r1"


def test_it_writes_ollamas_string() -> None:
    body = json.loads(build_error_body(ERROR, "r1", ErrorShape.OLLAMA))
    assert body["error"] == "No such model."
    assert body["code"] == "model_not_found"


def test_it_writes_anthropics_envelope() -> None:
    body = json.loads(build_error_body(ERROR, "r1", ErrorShape.ANTHROPIC))
    assert body["type"] == "error"
    assert body["error"] == {"type": "not_found_error", "message": "No such model."}
    assert body["request_id"] == "r1"


@pytest.mark.parametrize("shape", ErrorShape)
@pytest.mark.parametrize(
    "message", ['quotes " \\ and </script>', "half \udc80 a character", "line\r\nbreak\x00", "模型"]
)
def test_it_writes_any_message_as_json(shape: ErrorShape, message: str) -> None:
    body = build_error_body(OllaError(ErrorCode.INVALID_REQUEST, message), "r1", shape)
    error = json.loads(body)["error"]
    text = error if isinstance(error, str) else error["message"]
    assert text == message.encode("utf-8", "replace").decode()


def test_it_gives_the_time_in_utc() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert build_context(None, "r", noon) == {
        "endpoint": None,
        "request_id": "r",
        "timestamp": "2026-03-01T12:00:00Z",
    }
    local = noon.astimezone(timezone(timedelta(hours=2)))
    assert build_context(None, "r", local)["timestamp"] == "2026-03-01T12:00:00Z"
