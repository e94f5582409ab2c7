"""The field `model` of a multipart form (RFC 7578), found without parsing files. (pure)

What is taken for the model must be what a backend takes for it: a delimiter counts only on a line of its own,
names only as parameters of Content-Disposition, and two fields of that name are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from proxy.errors import ErrorCode, OllaError

MOST_PARTS = 1000  # as Starlette and Werkzeug limit it
MOST_PART_HEAD = 4096
MOST_MODEL_BYTES = 500

_DISPOSITION = re.compile(
    rb"^content-disposition[ \t]*:[ \t]*form-data([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE
)
_PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))[^;]*', re.DOTALL)
_DELIMITER_END = re.compile(rb"(--)?[ \t]*(?:\r?\n|\Z)")
_HEAD_END = re.compile(rb"(?:\A|\n)\r?\n")


def find_multipart_model(body: bytes, content_type: bytes) -> str | None:
    """The value of the text field `model` of a multipart/form-data body, or None.

    Raises OllaError as `find_multipart_span` does.
    """
    span = find_multipart_span(body, content_type)
    return body[span[0] : span[1]].decode("utf-8", "replace").strip() or None if span else None


def find_multipart_span(body: bytes, content_type: bytes) -> tuple[int, int] | None:
    """Where the value of the text field `model` stands, or None.

    Raises OllaError: ambiguous_model when there are several, invalid_request when there are too many parts.
    """
    boundary = _parameters(content_type).get(b"boundary")
    if not boundary:
        return None
    spans = []
    for start, end in _find_parts(body, boundary):
        head_end = _HEAD_END.search(body[start : min(end, start + MOST_PART_HEAD)])
        if head_end is not None and _is_model_field(body[start : start + head_end.start()]):
            spans.append((start + head_end.end(), end))
    if len(spans) > 1:
        raise OllaError(ErrorCode.AMBIGUOUS_MODEL, "The form has several fields named model.")
    if not spans or spans[0][1] - spans[0][0] > MOST_MODEL_BYTES:
        return None
    return spans[0]


def _parameters(value: bytes) -> dict[bytes, bytes]:
    """The parameters after the first `;` of a header value, the first of equal names; names in lower case."""
    found: dict[bytes, bytes] = {}
    for name, quoted, plain in _PARAMETER.findall(value):
        found.setdefault(name.lower(), re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL) or plain)
    return found


def _is_model_field(head: bytes) -> bool:
    """Whether a part's headers say that it is the text field `model`; one with a file name is a file."""
    disposition = _DISPOSITION.search(head)
    if disposition is None:
        return False
    parameters = _parameters(disposition.group(1))
    return parameters.get(b"name", b"").lower() == b"model" and b"filename" not in parameters


def _find_parts(body: bytes, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where each part (headers and content) starts and ends; a form cut short ends with the body."""
    opened = -1
    for line, after, closing in _find_delimiters(body, boundary):
        if opened >= 0:
            yield opened, max(line - body.endswith(b"\r", 0, line), opened)
        opened = after
        if closing:
            return
    if opened >= 0:
        yield opened, len(body)


def _find_delimiters(body: bytes, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
    """Each delimiter line: where the line break before it stands, where its line ends, whether it closes."""
    delimiter = b"\n--" + boundary
    at = -1
    if not body.startswith(delimiter[1:]):
        at = body.find(delimiter)
        if at < 0:
            return
    for _ in range(MOST_PARTS):
        end = _DELIMITER_END.match(body, at + len(delimiter))
        if end is not None:
            yield at, end.end(), end.group(1) is not None
        at = body.find(delimiter, (at + len(delimiter) if end is None else end.end()) - 1)
        if at < 0:
            return
    raise OllaError(ErrorCode.INVALID_REQUEST, f"The form has more than {MOST_PARTS} parts.")
