"""Only the name of the model changes in a body that is sent on under another name."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ErrorCode, OllaError
from proxy.inbound import RawHeaders, parse_body
from proxy.rewriting import find_json_span, rewrite_model

NEW = 'new "é"'


def rewrite(body: bytes, *headers: tuple[bytes, bytes]) -> bytes:
    sent: RawHeaders = list(headers)
    return rewrite_model(body, sent, parse_body(body, sent, inference=True, limit=0), NEW)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"model":', "}"), ('{ "messages" : [ {"model": "x"} ] , "model" : ', ' , "z" : 1 }'),
        ('\n{"MODEL":\t', "\n}\n"),
        ('{"\\u006dodel": ', ', "tools": [{"model": "x"}]}'), ('{"a": "\\"model\\": \\"x\\"", "model": ', "}"),
        ('{"a": 12, "a": 1, "model": ', "}"), ('{"a": 1, "a": 12, "model": ', ', "a": "é"}'),
        ('{"a": "é", "a": {"model": 1}, "model": ', "}"), ('{"a": [1, {}], "a": null, "a": true, "model":', "}"),
        ('\ufeff{"model": ', "}"),
    ],
)  # fmt: skip
def test_it_changes_no_other_byte(before: str, after: str) -> None:
    assert (
        rewrite(f'{before}"old"{after}'.encode())
        == f"{before}{json.dumps(NEW, ensure_ascii=False)}{after}".encode()
    )


def test_it_changes_the_field_of_a_form() -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\xff\x00old\r\n'
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--x--\r\n'
    )
    content_type = (b"content-type", b"multipart/form-data; boundary=x")
    assert rewrite(form % b"old", content_type) == form % NEW.encode()
    assert rewrite(b"--x--\r\n", content_type) == b"--x--\r\n"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(b'{"model": "old"}', mtime=0), [(b"content-encoding", b"gzip")]),
        (b'{"a": %b, "a": 1, "model": "old"}' % (b"1" * 5000), []),
    ],
)
def test_it_refuses_what_it_cannot_change_in_place(body: bytes, headers: RawHeaders) -> None:
    with pytest.raises(OllaError) as caught:
        rewrite(body, *headers)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_it_says_when_there_is_no_model() -> None:
    body = b'{"a": 1}'
    with pytest.raises(ValueError, match="no model"):
        find_json_span(body, parse_body(body, [], inference=True, limit=0))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["model", "a", "é"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from("abc"), json_values), max_size=5), st.integers(0, 5), st.booleans())
def test_it_changes_the_top_level_model_alone(
    pairs: list[tuple[str, object]], place: int, plain_ascii: bool
) -> None:
    shown = [f'"{key}" : {json.dumps(value, ensure_ascii=plain_ascii)}' for key, value in pairs]
    place = min(place, len(shown))

    def body(model: str) -> bytes:
        return ("{" + " , ".join([*shown[:place], f'"model": {model}', *shown[place:]]) + " }").encode()

    assert rewrite(body('"old"')) == body(json.dumps(NEW, ensure_ascii=False))
