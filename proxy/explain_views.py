"""`/internal/explain`: the decision that the live router of this process would take now."""

from __future__ import annotations

from typing import Any

import msgspec
from django.http import HttpResponse

from proxy.admission import identify
from proxy.errors import ErrorCode, OllaError
from proxy.inbound import RawHeaders
from proxy.rehearsal import Asked, explain
from proxy.session_rights import require_any
from proxy.status_views import StatusRequest
from proxy.views import json_answer

VIEW_PERMISSIONS = ("portal.view", "endpoints.view_endpoint")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """What may be asked, in a JSON body or in query parameters of the same names (`header` there, repeatable)."""

    path: str
    method: str = ""
    model: str | None = None
    headers: dict[str, str | list[str]] = {}
    client: str | None = None
    body: Any = None  # text as it would come, or any JSON value


async def explain_view(request: StatusRequest) -> HttpResponse:
    """GET with query parameters or POST with a JSON object, for signed-in users who may view endpoints."""
    if request.method not in ("GET", "HEAD", "POST"):
        allow = ((b"Allow", b"GET, HEAD, POST"),)
        raise OllaError(ErrorCode.METHOD_NOT_ALLOWED, "GET, HEAD and POST are answered here.", headers=allow)
    await require_any(request.COOKIES, VIEW_PERMISSIONS)
    question = parse_question(request.body) if request.method == "POST" else read_parameters(request.GET)
    answer = json_answer(explain(build_asked(question, identify(request.scope).address)))
    answer["Cache-Control"] = "no-store"
    return answer


def parse_question(body: bytes) -> Question:
    """A JSON body as a question. Raises OllaError(invalid_request)."""
    try:
        return msgspec.json.decode(body, type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OllaError(ErrorCode.INVALID_REQUEST, f"This is no question: {error}.") from None


def read_parameters(query: Any) -> Question:
    """Query parameters as a question. Raises OllaError(invalid_request)."""
    known = {"path", "method", "model", "header", "client", "body"}
    unknown = sorted(set(query) - known)
    if unknown or not query.get("path"):
        problem = f"{unknown[0][:50]!r} is none of them" if unknown else "`path` is missing"
        raise OllaError(ErrorCode.INVALID_REQUEST, f"The parameters are {', '.join(sorted(known))}: {problem}.")
    return Question(
        path=query["path"],
        method=query.get("method", ""),
        model=query.get("model"),
        headers=parse_header_lines(query.getlist("header")),
        client=query.get("client"),
        body=query.get("body"),
    )


def parse_header_lines(lines: list[str]) -> dict[str, str | list[str]]:
    """`Name: value` lines. Raises OllaError(invalid_request) for a line without a colon."""
    headers: dict[str, str | list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise OllaError(ErrorCode.INVALID_REQUEST, "A header is written as `Name: value`.")
        values = headers.setdefault(name.strip(), [])
        assert isinstance(values, list)  # noqa: S101 - made in the line above
        values.append(value.strip())
    return headers


def build_asked(question: Question, default_client: str = "") -> Asked:
    """The request a question speaks of. Raises OllaError(invalid_request) for what could not be sent."""
    path, _, query = question.path.partition("?")
    if not path.startswith("/"):
        raise OllaError(ErrorCode.INVALID_REQUEST, "The path begins with a slash, such as /olla/openai/v1/models.")
    if question.model is not None and question.body is not None:
        raise OllaError(ErrorCode.INVALID_REQUEST, "Give the model or the body that names it, not both.")
    body = _build_body(question)
    method = question.method.upper() or ("POST" if body else "GET")
    if method not in _METHODS:
        raise OllaError(ErrorCode.INVALID_REQUEST, f"The method is one of {', '.join(sorted(_METHODS))}.")
    return Asked(
        path=path,
        method=method,
        query=query.encode(),
        headers=_build_headers(question.headers),
        body=body,
        client=default_client if question.client is None else question.client,
    )


def _build_body(question: Question) -> bytes:
    if question.model is not None:
        return msgspec.json.encode({"model": question.model})
    if isinstance(question.body, str):
        return question.body.encode()
    return b"" if question.body is None else msgspec.json.encode(question.body)


def _build_headers(headers: dict[str, str | list[str]]) -> RawHeaders:
    built: RawHeaders = []
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            built.append((name.lower().encode(), value.encode("latin-1", "replace")))
    return built
