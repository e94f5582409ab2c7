"""A secret shows itself to nobody who does not ask, and placeholders read only what they may."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import pprint
import traceback
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.secrets import (
    MASK,
    Secret,
    SecretError,
    expand_placeholders,
    may_read_env,
    placeholder_names,
)
from tests.proxy.builders import make_endpoint

TEXT = "s3cr3t-value"
ALLOW = ("*_API_KEY", "*_TOKEN", "OLLA_BACKEND_*")


def encode_or_refuse(encode: Any, value: object) -> str:
    try:
        return str(encode(value))
    except TypeError as error:
        return str(error)


@pytest.mark.parametrize(
    "show",
    [
        str, repr, ascii, format, pprint.pformat, lambda s: f"{s}", lambda s: f"{s!r:>20}", lambda s: f"{s:x<9}",
        lambda s: f"{s!s}{s!a}", "{0} {0!r}".format, lambda s: str([s, {"a": s}, (s,)]),
        lambda s: str(Exception(s)), lambda s: str(ValueError("bad", s)), lambda s: str(dir(s)),
        lambda s: encode_or_refuse(json.dumps, s), lambda s: encode_or_refuse(msgspec.json.encode, s),
        lambda s: encode_or_refuse(msgspec.to_builtins, s), lambda s: encode_or_refuse(pickle.dumps, s),
        lambda s: encode_or_refuse(vars, s), lambda s: json.dumps({"a": s}, default=str),
        lambda s: logging.LogRecord("a", 20, "p", 1, "key %s %r", (s, s), None).getMessage(),
    ],
)  # fmt: skip
def test_it_never_shows_itself(show: Any) -> None:
    assert TEXT not in show(Secret(TEXT))


def test_it_is_revealed_on_request() -> None:
    assert Secret(TEXT).reveal() == TEXT
    assert str(Secret(TEXT)) == MASK


def test_it_is_not_shown_by_a_record_that_holds_it() -> None:
    record = make_endpoint(headers=[("Authorization", f"Bearer {TEXT}")])
    assert TEXT not in repr(record)
    assert TEXT not in str(dataclasses.astuple(dataclasses.replace(record, model_names={})))
    assert TEXT not in pprint.pformat(record)


def test_it_is_not_shown_by_a_traceback_with_locals() -> None:
    def fail(secret: Secret) -> None:
        raise ValueError(secret)

    try:
        fail(Secret(TEXT))
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert TEXT not in shown.replace("TEXT = 's3cr3t-value'", "")


def test_it_stays_a_secret_when_copied() -> None:
    secret = Secret(TEXT)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_it_is_not_pickled() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(Secret(TEXT), protocol)


def test_it_compares_by_value_to_other_secrets_only() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("a")
    assert not Secret("")


ENV = {"A_API_KEY": "ka", "B_TOKEN": "tb", "EMPTY_TOKEN": "", "OLLA_BACKEND_X": "bx", "PATH": "/bin",
       "OLLA_SECRET_KEY": "own", "NL_TOKEN": "nl\r\n", "BAD_TOKEN": "a\nX-Evil: 1",
       "DEEP_TOKEN": "${A_API_KEY}"}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"), ("", ""), ("${A_API_KEY}", "ka"), ("Bearer ${A_API_KEY}-${B_TOKEN}", "Bearer ka-tb"),
        ("${OLLA_BACKEND_X}", "bx"), ("${NO_TOKEN:-dflt}", "dflt"), ("${EMPTY_TOKEN:-dflt}", "dflt"),
        ("${A_API_KEY:-dflt}", "ka"), ("${NO_TOKEN:-}", ""), ("$A_API_KEY", "$A_API_KEY"), ("$$", "$$"), ("${}",
        "${}"),
        ("${1_TOKEN}", "${1_TOKEN}"), ("${A_API_KEY", "${A_API_KEY"), ("${A_API_KEY-x}", "${A_API_KEY-x}"),
        ("${NL_TOKEN}", "nl"), ("${DEEP_TOKEN}", "${A_API_KEY}"), ("${NO_TOKEN:-a:-b $ c}", "a:-b $ c"),
        ("\ttab", "\ttab"), ("pä$$wörd", "pä$$wörd"),
    ],
)  # fmt: skip
def test_it_expands_placeholders(text: str, expanded: str) -> None:
    assert expand_placeholders(text, ENV, ALLOW) == expanded


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("${NO_TOKEN}", "NO_TOKEN"), ("${EMPTY_TOKEN}", "EMPTY_TOKEN"), ("${PATH}", "PATH"), ("${PATH:-x}",
        "PATH"),
        ("${OLLA_SECRET_KEY}", "OLLA_SECRET_KEY"), ("${BAD_TOKEN}", "BAD_TOKEN"), ("a\nb", "credential"),
        ("${NO_TOKEN:-${A_API_KEY}}", "NO_TOKEN"), ("${A_API_KEY:-${B_TOKEN}}", "A_API_KEY"), ("a\x00",
        "credential"),
        ("a\x7f", "credential"),
    ],
)  # fmt: skip
def test_it_refuses_by_the_name_and_never_the_value(text: str, name: str) -> None:
    with pytest.raises(SecretError) as caught:
        expand_placeholders(text, ENV, ALLOW)
    assert name in str(caught.value)
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "allow", "expected"),
    [
        ("X_API_KEY", ALLOW, True), ("X_TOKEN", ALLOW, True), ("OLLA_BACKEND_KEY", ALLOW, True), ("PATH",
        ALLOW, False),
        ("OLLA_ADMIN_TOKEN", ALLOW, False), ("OLLA_ADMIN_TOKEN", ("*",), False), ("OLLA_ENCRYPTION_KEYS", ("*",),
        False),
        ("SECRET_KEY", ("*",), False), ("DATABASE_URL", ("*",), False), ("DJANGO_SETTINGS_MODULE", ("*",), False),
        ("secret_key", ("*",), False), ("olla_admin_token", ("*",), False), ("HOME", ("*",), True), ("X", (),
        False),
        ("x_api_key", ALLOW, False), ("XAPI_KEY", ALLOW, False), ("X_API_KEY2", ALLOW, False),
    ],
)  # fmt: skip
def test_it_reads_only_allowed_names_and_never_the_products_own(
    name: str, allow: tuple[str, ...], expected: bool
) -> None:
    assert may_read_env(name, allow) is expected


def test_it_lists_the_names_a_text_refers_to() -> None:
    assert placeholder_names("${A} x ${B_1:-d} $C ${}") == ["A", "B_1"]


@given(st.text(max_size=60))
def test_it_expands_or_refuses_any_text(text: str) -> None:
    try:
        expanded = expand_placeholders(text, ENV, ALLOW)
    except SecretError:
        return
    assert "\n" not in expanded
    assert "\r" not in expanded
    if "${" not in text:
        assert expanded == text
