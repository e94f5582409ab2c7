"""Text without secrets: keys, cookies, credentials in headers, URLs and queries become `***`. (pure)

What is recognised is a secret by its form (`Bearer ...`, `sk-...`, `user:password@host`) or by the name beside it
(`api_key=`, `"Authorization": `, `(b'x-api-key', `), also percent-encoded. A clean line costs a search for the few
words one of these must contain.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

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
    if text.isalnum() and "AIza" not in text:
        return text  # one word: all other secrets are known by a sign in them, or by what stands before them
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
