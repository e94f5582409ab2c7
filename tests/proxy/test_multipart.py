"""The model named in a form beside files, also in forms made to be misread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ErrorCode, OllaError
from proxy.inbound import parse_body
from proxy.multipart import MOST_MODEL_BYTES, MOST_PARTS, find_multipart_model
from tests.proxy.builders import outcome_of

TYPE = b"multipart/form-data; boundary=xyz"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
MODEL = b'Content-Disposition: form-data; name="model"\r\n\r\n'


def form(*parts: bytes, boundary: bytes = b"xyz", newline: bytes = b"\r\n") -> bytes:
    lines = b"".join(b"--" + boundary + newline + part + newline for part in parts)
    return lines + b"--" + boundary + b"--" + newline


def test_it_is_read_from_an_upload_on_an_inference_path() -> None:
    body = form(FILE + b"RIFF", MODEL + b"whisper-1")
    facts = parse_body(body, [(b"content-type", TYPE)], inference=True, limit=0)
    assert facts.model == "whisper-1"
    assert not facts.is_json


@pytest.mark.parametrize(
    "body",
    [
        form(MODEL + b"whisper-1", FILE + b"RIFF"),
        form(FILE + b"RIFF\r\n\r\n--xy\r\n--xyzz\r\n--xyz-", MODEL + b" whisper-1 "),
        form(b"content-DISPOSITION:form-data;NAME=model\r\n\r\nwhisper-1"),
        form(b'X: y\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\nwhisper-1'),
        form(b'Content-Disposition: form-data; name="mod\\el"\r\n\r\nwhisper-1'),
        form(b'Content-Disposition: form-data; foo; name="model"; x="\r\n\r\nwhisper-1'),
        form(b"\r\nwhisper-9", MODEL + b"whisper-1"),
        form(MODEL + b"whisper-1").replace(b"\r\n", b"\n"),
        b"preamble\r\n" + form(MODEL + b"whisper-1") + b"epilogue\r\n" + form(MODEL + b"other"),
        b"--xyz  \r\n" + MODEL + b"whisper-1",
        form(FILE + b'Content-Disposition: form-data; name="model"\r\n\r\nother', MODEL + b"whisper-1"),
        form(
            b'Content-Disposition: form-data; name="f"; filename="; name=model"\r\n\r\nother', MODEL + b"whisper-1"
        ),
        form(
            b'Content-Disposition: form-data; name="f"; filename="\\"; name=\\"model\\""\r\n\r\nother',
            MODEL + b"whisper-1",
        ),
        form(b'Content-Disposition: form-data; name="model"; filename="m"\r\n\r\nother', MODEL + b"whisper-1"),
        form(b'Content-Disposition: attachment; name="model"\r\n\r\nother', MODEL + b"whisper-1"),
        form(b'X: ; name="model"\r\n\r\nother', MODEL + b"whisper-1"),
    ],
)
def test_it_finds_the_model_field(body: bytes) -> None:
    assert find_multipart_model(body, TYPE) == "whisper-1"


@pytest.mark.parametrize(
    "content_type",
    [b'multipart/form-data; boundary="a;b c"', b"multipart/form-data; charset=x; Boundary = \"a;b c\" ; y=z",
     b'multipart/form-data; xboundary=no; boundary="a\\;b c"; boundary=later'],
)  # fmt: skip
def test_it_reads_a_quoted_boundary(content_type: bytes) -> None:
    assert find_multipart_model(form(MODEL + b"m", boundary=b"a;b c"), content_type) == "m"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(MODEL + b"m"), b"multipart/form-data"),
        (form(MODEL + b"m"), b"multipart/form-data; boundary="),
        (form(MODEL + b"m"), b"multipart/form-data; boundary=other"),
        (form(MODEL + b"m"), b"multipart/form-data; boundary=xy"),
        (b"", TYPE),
        (b"--xyz--\r\n", TYPE),
        (b"--xyz", TYPE),
        (form(MODEL), TYPE),
        (form(MODEL + b"  "), TYPE),
        (form(MODEL + b"m" * (MOST_MODEL_BYTES + 1)), TYPE),
        (form(FILE + b"RIFF"), TYPE),
        (form(b"no head end"), TYPE),
        (form(b"X: " + b"y" * 5000 + b"\r\n" + MODEL + b"m"), TYPE),
        (form(), TYPE),
    ],
)
def test_it_finds_none_where_there_is_none(body: bytes, content_type: bytes) -> None:
    assert find_multipart_model(body, content_type) is None


@pytest.mark.parametrize("second", [MODEL, MODEL.replace(b"model", b"Model"), MODEL.replace(b'"', b"")])
def test_it_refuses_two_models(second: bytes) -> None:
    with pytest.raises(OllaError) as caught:
        find_multipart_model(form(MODEL + b"a", FILE + b"x", second + b"b"), TYPE)
    assert caught.value.code is ErrorCode.AMBIGUOUS_MODEL


def test_it_refuses_a_form_of_endless_parts() -> None:
    assert find_multipart_model(form(*[FILE] * (MOST_PARTS - 2), MODEL + b"m"), TYPE) == "m"
    with pytest.raises(OllaError) as caught:
        find_multipart_model(form(*[FILE] * MOST_PARTS, MODEL + b"m"), TYPE)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


noise = st.lists(
    st.sampled_from([b"--xyz", b"--xyz--", b"\r\n", b"\n", MODEL, FILE, b'"', b"; name=model", b"a", b"\\", b" "]),
    max_size=14,
).map(b"".join)


@given(noise)
def test_it_never_fails_on_noise(body: bytes) -> None:
    model = outcome_of(lambda: find_multipart_model(body, TYPE))
    if isinstance(model, OllaError):
        assert model.code is ErrorCode.AMBIGUOUS_MODEL
    else:
        assert model is None or model == model.strip() != ""


@given(st.binary(max_size=40), st.text(min_size=1, max_size=20).filter(str.strip))
def test_it_finds_the_model_beside_any_file(content: bytes, model: str) -> None:
    body = form(FILE + content, MODEL + model.encode())
    if b"--xyz" not in content + model.encode():
        assert find_multipart_model(body, TYPE) == model.strip()
