"""Nothing secret in a log line: keys, cookies, credentials in headers, URLs and queries become `***`.

Records are cleaned when they are made (a log record factory), so that every handler, whoever adds it, gets clean
text: message with its arguments, traceback and stack. `configure_logging` is Django's LOGGING_CONFIG.

What is recognised is a secret by its form (`Bearer ...`, `sk-...`, `user:password@host`) or by the name beside it
(`api_key=`, `"Authorization": `, `(b'x-api-key', `), also percent-encoded. A clean line costs a search for the few
words one of these must contain.
"""

from __future__ import annotations

import logging
import logging.config
import re
from typing import Any
from urllib.parse import unquote

from proxy.request_id import current_request

MASK = "***"

# The end of a name, letters only and in lower case: API_KEY, x-api-key and %61pi_key are one name.
_SECRET_ENDS = (
    "key", "token", "secret", "password", "passwd", "passphrase", "auth", "authorization", "signature",
    "credential", "credentials", "cookie", "sessionid",
)  # fmt: skip
# Too short, or too common a word, to be judged by the end.
_SECRET_NAMES = frozenset({"sig", "pwd", "pass", "xollaoperator"})
# Their value is everything to the end of the line.
_WHOLE_LINE = ("authorization", "cookie")
_NOT_LETTERS = re.compile(r"[^a-z]")

# A name and what leads from it to its value. All begin where a name begins, so that a long line costs no more
# than its length; the value is not part of the match, since it may hold another name (`next=/?token=...`).
_HEADS = (
    re.compile(r"(?<![\w.%\[\]-])(?P<name>[\w.%\[\]-]{1,200})\s?=\s?"),
    re.compile(r"(?<![A-Za-z0-9_.-])(?P<name>[A-Za-z0-9_.-]{1,200})%3[dD]"),
    re.compile(r"(?<![\w-])(?P<name>[\w-]{1,200})(?:\\*[\"'](?:\s*,)?)?\s*(?:(?<=,)|:|=>)\s*"),
)
_QUOTED = re.compile(
    r"""(?P<opening>[bfru]?\\+(?P<quote>["']))(?:(?!\\+(?P=quote)).)*"""
    r"""|(?P<double>[bfru]?")(?:[^"\\\r\n]|\\.)*|(?P<single>[bfru]?')(?:[^'\\\r\n]|\\.)*"""
)
_BRACKETED = re.compile(r"[\[(][^\])\r\n]*")
# A quoted parameter belongs to the value, another quote ends what the header stands in.
_TO_LINE_END = re.compile(r"(?:[^\r\n\"'=]|=(?:\\*[\"'][^\"'\r\n]*[\"'])?)*")
_WORD = re.compile(r"(?:(?!%26)[^&\s\"'<>])*")

_IN_URL = re.compile(r"((?::|%3[aA])(?://|%2[fF]%2[fF]))(?:(?!%40|%2[fF])[^/?#\s\"'<>])+(@|%40)")
_BEARER = re.compile(r"(?i)\b(bearer)(\s+|%20|\+)(?!tokens?\b|auth)[^\s\"',;<>)\]}\\]+")
# Only what no English word is: with a capital, a digit or a sign.
_BASIC = re.compile(r"\b([Bb]asic)(\s+|%20|\+)(?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/=_-]{4,}")
_KEY = re.compile(r"(?<![A-Za-z0-9])(sk-|hf_|gsk_|xai-|nvapi-|AIza)[A-Za-z0-9_-]{3,}")


def redact(text: str) -> str:
    """`text` with every secret in it replaced by `***`."""
    low = text.lower()
    # One expression: a loop over the words costs more.
    if (
        "key" in low or "token" in low or "secret" in low or "pass" in low or "auth" in low or "sk-" in low
        or "bearer" in low or "cookie" in low or "basic" in low or "sig" in low or "@" in low or "%" in low
        or "session" in low or "pwd" in low or "credential" in low or "hf_" in low or "olla-operator" in low
        or "xai-" in low or "nvapi-" in low or "aiza" in low
    ):  # fmt: skip
        return _redact(text)
    return text


def _redact(text: str) -> str:
    text = _IN_URL.sub(rf"\1{MASK}\2", text)
    text = _BEARER.sub(rf"\1\2{MASK}", text)
    text = _BASIC.sub(rf"\1\2{MASK}", text)
    text = _KEY.sub(rf"\1{MASK}", text)
    for head in _HEADS:
        text = _mask_values(head, text)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a parameter, header or field of that name holds a secret; percent-encoding is undone first."""
    plain = _plain_name(name)
    return plain.endswith(_SECRET_ENDS) or plain in _SECRET_NAMES


def _plain_name(name: str) -> str:
    for _ in range(3):
        if "%" not in name:
            break
        name = unquote(name)
    return _NOT_LETTERS.sub("", name.lower())


def _mask_values(head: re.Pattern[str], text: str) -> str:
    """Mask what follows each secret name that `head` finds."""
    kept: list[str] = []
    done = position = 0
    while match := head.search(text, position):
        position = match.end()
        if not is_secret_name(match["name"]):
            continue
        opening, end = _find_value(match["name"], text, position)
        if end > position:
            kept += (text[done:position], opening, MASK)
            done = position = end
    if not kept:
        return text
    kept.append(text[done:])
    return "".join(kept)


def _find_value(name: str, text: str, start: int) -> tuple[str, int]:
    """What opens the value at `start` (a quote) and where the value ends."""
    quoted = _QUOTED.match(text, start)
    if quoted:
        return quoted["opening"] or quoted["double"] or quoted["single"], quoted.end()
    if bracketed := _BRACKETED.match(text, start):
        return text[start], bracketed.end()
    pattern = _TO_LINE_END if _plain_name(name).endswith(_WHOLE_LINE) else _WORD
    found = pattern.match(text, start)
    return "", found.end() if found else start


def clean_record(record: logging.LogRecord) -> None:
    """Take every secret out of a record: its text, its traceback, its stack."""
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - a log call must not raise, nor its arguments be shown
        format_string = record.msg if isinstance(record.msg, str) else ""
        text = f"{format_string} (its arguments do not fit: {type(error).__name__})"
        record.msg, record.args = text, ()
    clean = redact(text)
    if clean != text:
        _replace_text(record, clean)
    if record.exc_info and record.exc_info[0] is not None:
        _clean_traceback(record)
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


def _replace_text(record: logging.LogRecord, clean: str) -> None:
    """Put the clean text in; arguments stay where cleaning each is enough, since some formatters read them."""
    if isinstance(record.args, tuple) and isinstance(record.msg, str):
        record.args = tuple(redact(each) if isinstance(each, str) else each for each in record.args)
        if record.args and record.getMessage() == clean:
            return
    record.msg, record.args = clean, ()


def _clean_traceback(record: logging.LogRecord) -> None:
    text = _formatter.formatException(record.exc_info)  # type: ignore[arg-type]
    record.exc_text = redact(text)
    if record.exc_text != text:
        # A handler that looks at the exception itself would find the secret in it.
        record.exc_info = None


_formatter = logging.Formatter()


class _CleanRecords:
    """A log record factory around another one; it also notes which request a record belongs to."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._inner(*args, **kwargs)
        clean_record(record)
        record.request_id = redact(current_request.get())
        return record


def install() -> None:
    """Clean every record this process makes from now on."""
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _CleanRecords):
        logging.setLogRecordFactory(_CleanRecords(factory))


def configure_logging(config: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG: `logging.config.dictConfig`, with every record cleaned."""
    install()
    logging.config.dictConfig(config)
