"""Adding and editing endpoints: what is stored, and what each refusal says."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.messages import get_messages
from django.test import override_settings
from django.urls import reverse
from django.utils import timezone

from endpoints.forms import EndpointForm
from endpoints.models import Endpoint, EndpointHealth, Revision
from endpoints.records import build_record
from tests.endpoints.desk import ADD, add, edit_address, error_texts, form_data, make_endpoint

pytestmark = pytest.mark.django_db


def refusals(response) -> list[str]:
    assert response.status_code == 200
    return error_texts(response.content.decode())


def notices(response) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)] or [
        str(message) for message in response.context["messages"]
    ]


def test_it_stores_an_endpoint(admin_client):
    add(admin_client, model_include=" llama* \n\n QWEN[23]* ")

    row = Endpoint.objects.get()
    assert (row.name, row.url, row.backend_type) == ("gpu-1", "http://127.0.0.1:11434", "ollama")
    assert row.model_include == "llama*\nQWEN[23]*"


def test_it_asks_the_prober_to_act_on_a_new_endpoint_at_once(admin_client):
    before = timezone.now()
    add(admin_client)

    health = EndpointHealth.objects.get()
    assert before <= health.next_check <= timezone.now()
    assert before <= health.next_discovery <= timezone.now()


def test_it_asks_the_prober_to_act_on_an_edited_endpoint_at_once(admin_client):
    row = make_endpoint()
    EndpointHealth.objects.create(endpoint=row, version=7, next_check=timezone.now() + timedelta(days=36500))

    admin_client.post(edit_address(row), form_data(row, priority="5"))

    health = EndpointHealth.objects.get()
    assert health.next_check <= timezone.now()
    assert health.version == 8


def test_it_tells_routing_of_an_edit(admin_client):
    row = make_endpoint()
    before = Revision.objects.get(pk=1).number

    admin_client.post(edit_address(row), form_data(row, priority="5"))

    assert Revision.objects.get(pk=1).number > before


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("lm_studio", "lm-studio"),
        ("LMStudio", "lm-studio"),
        ("llama.cpp", "llamacpp"),
        ("DMR", "docker-model-runner"),
    ],
)
def test_it_stores_types_in_their_canonical_spelling(admin_client, typed, stored):
    add(admin_client, backend_type=typed)

    assert Endpoint.objects.get().backend_type == stored


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "gpu-1:11434"}, "must start with http:// or https://"),
        ({"url": "ftp://gpu-1"}, "must start with http:// or https://"),
        ({"url": "http://"}, "has no host"),
        ({"url": "http://127.0.0.1:99999"}, "check brackets and port"),
        ({"url": "http://127.0.0.1:port"}, "check brackets and port"),
        ({"url": "http://127.0.0.1:0"}, "Port 0"),
        ({"url": "http://gpu 1"}, "Spaces, control characters"),
        ({"url": "http://bücher.example"}, "xn-- form"),
        ({"url": "http://127.0.0.1/?key=1"}, "Leave out everything from ? or #"),
        ({"url": "http://127.0.0.1/#x"}, "Leave out everything from ? or #"),
        ({"url": "http://169.254.169.254"}, "link-local, metadata"),
        ({"url": "http://[fe80::1]:11434"}, "link-local, metadata"),
        ({"url": "http://[::ffff:169.254.169.254]"}, "link-local, metadata"),
        ({"url": "http://100.100.100.200"}, "link-local, metadata"),
        # Other spellings of 169.254.169.254, which only the resolver understands.
        ({"url": "http://2852039166"}, "link-local, metadata"),
        ({"url": "http://0xa9.0xfe.0xa9.0xfe"}, "link-local, metadata"),
        ({"url": "http://127.0.0.1:40114"}, "This server itself listens"),
        ({"url": "http://localhost:40114/olla/proxy"}, "This server itself listens"),
        ({"health_check_url": "http://169.254.169.254/latest"}, "link-local, metadata"),
        ({"health_check_url": "gopher://127.0.0.1/"}, "Enter a path such as /health"),
        ({"model_url": "http://127.0.0.1:40114/"}, "This server itself listens"),
        ({"backend_type": "banana"}, "Unknown type. Known are: auto, ollama"),
        ({"name": "gpu\r\nSet-Cookie: x"}, "control characters"),
        ({"check_interval": "0.5"}, "must be at least 1 second"),
        ({"check_interval": "nan"}, "Enter a number"),
        ({"check_timeout": "5"}, "must be shorter than the check interval (5 s)"),
        ({"check_interval": "100", "check_timeout": "31"}, "at most 30 seconds"),
        ({"check_timeout": "0"}, "must be above 0"),
        ({"model_include": "llama**"}, "a single * already matches"),
        ({"model_include": "llama[3"}, "every [ needs its ]"),
        ({"model_exclude": "llama3]"}, "every [ needs its ]"),
        ({"model_exclude": "a[]"}, "every [ needs its ]"),
        ({"model_include": "llama*, qwen*"}, "one pattern a line"),
        ({"auth_type": "bearer"}, "needs a token"),
        ({"auth_type": "api_key"}, "needs a key"),
        ({"auth_type": "basic", "auth_secret": "x"}, "needs a user name"),
        ({"auth_type": "basic", "auth_username": "x"}, "needs a password"),
        ({"auth_type": "basic", "auth_username": "a:b", "auth_secret": "x"}, "cannot contain a colon"),
        ({"auth_type": "bearer", "auth_secret": "Bearer abc"}, "Enter the token alone"),
        ({"auth_type": "bearer", "auth_secret": "a\tb"}, "control character"),
        ({"auth_type": "bearer", "auth_secret": "a" * 16_385}, "longer than 16384"),
        ({"auth_type": "bearer", "auth_secret": "abc\u201d"}, "not plain ASCII"),
        ({"auth_type": "bearer", "auth_secret": " abc"}, "begins or ends with a space"),
        ({"auth_type": "none", "auth_secret": "abc"}, "does not use a secret"),
        ({"auth_type": "bearer", "auth_secret": "abc", "auth_username": "u"}, "does not use a user name"),
        ({"auth_type": "api_key", "auth_secret": "k", "auth_header": "X Key"}, "not a header name"),
        ({"auth_type": "api_key", "auth_secret": "k", "auth_header": "Host"}, "Host belongs to the connection"),
        ({"auth_type": "bearer", "auth_secret": "${HOME}"}, "HOME may not be read here"),
        ({"auth_type": "bearer", "auth_secret": "${OLLA_SECRET_KEY}"}, "OLLA_SECRET_KEY may not be read here"),
        ({"auth_type": "bearer", "auth_secret": "${a-b}"}, "${ begins a placeholder"),
        ({"extra_headers": "X-Team"}, "Line 1 has no colon"),
        ({"extra_headers": "X Team: a"}, "Line 1: the text before the colon is not a header name"),
        ({"extra_headers": "X-A: 1\nTransfer-Encoding: chunked"}, "Transfer-Encoding belongs to the connection"),
        ({"extra_headers": "Content-Length: 1"}, "Content-Length belongs to the connection"),
        ({"extra_headers": "X-Team:"}, "X-Team: enter the value"),
        ({"extra_headers": "X-Team: a\x01b"}, "The value of X-Team contains"),
        ({"extra_headers": "X-Team: ********"}, "no value is stored under this name"),
        ({"extra_headers": "X-Team: ${PATH}"}, "PATH may not be read here"),
        ({"extra_headers": "X-Team: " + "a" * 20_000}, "at most 16384 characters"),
        ({"ca_file": "lab.pem"}, "No folder for CA files is set (OLLA_CA_DIR)"),
        ({"model_url": "http://169.254.169.254/models"}, "link-local, metadata"),
        ({"model_url": "http://[64:ff9b::a9fe:a9fe]/"}, "link-local, metadata"),
        ({"auth_type": "bearer", "auth_secret": "${SECRET_KEY}"}, "SECRET_KEY may not be read here"),
        ({"auth_type": "bearer", "auth_secret": "${file:key}"}, "no folder for such files is set"),
        ({"extra_headers": "X-Team: ${file:key}"}, "no folder for such files is set"),
    ],
)
def test_it_refuses_and_says_why(admin_client, changes, said):
    response = add(admin_client, **changes)

    assert any(said in text for text in refusals(response)), refusals(response)
    assert not Endpoint.objects.exists()


@pytest.mark.parametrize("patterns", ["*", "*llama*instruct*", "[!q]*", "qwen?.5", "hf.co/*/*:Q4_K_M", "\n\n  \n"])
def test_it_takes_shell_patterns(admin_client, patterns):
    add(admin_client, model_include=patterns, model_exclude=patterns)

    assert Endpoint.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://alice:hunter2-pass@127.0.0.1:11434",
        "http://alice:hunter2-pass/x@127.0.0.1",
        "http://hunter2-pass@[::1",
        "alice:hunter2-pass@host",
    ],
)
@pytest.mark.parametrize("field", ["url", "health_check_url"])
def test_it_never_repeats_credentials_of_a_url(admin_client, url, field):
    page = add(admin_client, **{field: url})

    assert b"hunter2-pass" not in page.content


def test_it_says_where_credentials_of_a_url_belong(admin_client):
    page = add(admin_client, url="http://alice:hunter2-pass@127.0.0.1:11434", extra_headers="X-A: ${A_TOKEN}")

    assert refusals(page) == [
        "The URL holds credentials. Remove user:password@ and set them under Authentication."
    ]
    assert b'value="http://127.0.0.1:11434"' in page.content
    assert b'value="gpu-1"' in page.content
    assert b"X-A: ${A_TOKEN}" in page.content


def test_it_warns_of_a_name_that_does_not_resolve_but_saves(admin_client):
    page = add(admin_client, url="http://no-such-host.invalid:11434")

    assert any("no-such-host.invalid could not be resolved" in text for text in notices(page))
    assert Endpoint.objects.count() == 1


def test_it_warns_of_a_second_endpoint_with_the_same_url_but_saves(admin_client):
    make_endpoint(name="first")

    page = add(admin_client, name="second")

    assert any("first has the same URL" in text for text in notices(page))
    assert Endpoint.objects.count() == 2


def test_it_does_not_warn_of_the_endpoint_itself(admin_client):
    row = make_endpoint()

    page = admin_client.post(edit_address(row), form_data(row), follow=True)

    assert not any("same URL" in text for text in notices(page))


def test_it_warns_of_an_unset_variable_but_saves(admin_client, monkeypatch):
    monkeypatch.delenv("UNSET_API_KEY", raising=False)

    page = add(admin_client, auth_type="bearer", auth_secret="${UNSET_API_KEY}")

    assert any("UNSET_API_KEY is not set" in text for text in notices(page))
    assert Endpoint.objects.count() == 1


def test_it_does_not_warn_of_an_unset_variable_with_a_default(admin_client, monkeypatch):
    monkeypatch.delenv("UNSET_API_KEY", raising=False)

    page = add(admin_client, auth_type="bearer", auth_secret="${UNSET_API_KEY:-none}")

    assert not any("UNSET_API_KEY" in text for text in notices(page))


def test_it_listens_on_every_address_when_bound_to_all(admin_client, settings):
    settings.OLLA_HOST = "0.0.0.0"

    page = add(admin_client, url="http://127.0.0.3:40114")

    assert any("This server itself listens" in text for text in refusals(page))


def test_it_takes_a_ca_file_from_its_folder(admin_client, settings, tmp_path):
    settings.OLLA_CA_DIR = str(tmp_path)
    system = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    (tmp_path / "own.pem").write_bytes(Path(system).read_bytes())

    add(admin_client, ca_file="own.pem")

    assert Endpoint.objects.get().ca_file == "own.pem"
    record = build_record(Endpoint.objects.get(), (), {})
    assert (record.tls.ca_file, record.config_problem) == (str(tmp_path / "own.pem"), "")
    (tmp_path / "own.pem").unlink()
    record = build_record(Endpoint.objects.get(), (), {})
    assert record.status == "config_error"
    assert record.config_problem == "There is no CA file own.pem in the folder OLLA_CA_DIR."


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "not a path of this machine"),
        ("../../etc/passwd", "from the folder OLLA_CA_DIR only"),
        ("out.pem", "from the folder OLLA_CA_DIR only"),
        ("missing.pem", "There is no CA file missing.pem"),
        (".", "There is no CA file"),
    ],
)
def test_it_refuses_a_ca_file_from_elsewhere(admin_client, settings, tmp_path, name, said):
    settings.OLLA_CA_DIR = str(tmp_path)
    (tmp_path / "out.pem").symlink_to("/etc/passwd")

    assert any(said in text for text in refusals(add(admin_client, ca_file=name)))


def test_it_refuses_a_ca_file_that_is_no_certificate(admin_client, settings, tmp_path):
    settings.OLLA_CA_DIR = str(tmp_path)
    (tmp_path / "own.pem").write_text("no certificate")

    assert any("no certificate in PEM form" in text for text in refusals(add(admin_client, ca_file="own.pem")))


def test_it_shows_every_field_that_acts(admin_client):
    page = admin_client.get(reverse(ADD)).content.decode()

    for shown in (
        "name",
        "tags",
        "retry_statuses",
        "max_concurrent",
        "requests_per_minute",
        "url",
        "weight",
        "notes",
        "ca_file",
        "extra_headers",
        "auth_secret",
    ):
        assert f'name="{shown}"' in page


@pytest.mark.parametrize("table", ["rulecondition", "revision", "proberlease"])
def test_it_leaves_tables_out_that_nobody_edits_by_themselves(admin_client, table):
    assert admin_client.get(f"/admin/endpoints/{table}/").status_code == 404


def test_it_refuses_statuses_that_are_no_errors(admin_client):
    for wrong in ("200", "x", "502;503", "600"):
        assert any("is no error status" in text for text in refusals(add(admin_client, retry_statuses=wrong)))
    add(admin_client, retry_statuses=" 502 503,503 ")
    assert Endpoint.objects.get().retry_statuses == "502, 503"


@pytest.mark.parametrize(("kind", "shown"), [("ollama", "900, for Ollama"), ("vllm", "300, for vLLM")])
def test_it_shows_the_timeouts_that_hold_without_own_ones(kind: str, shown: str) -> None:
    form = EndpointForm(instance=Endpoint(backend_type=kind))
    holders = {
        name: form.fields[name].widget.attrs["placeholder"] for name in ("first_byte_timeout", "total_timeout")
    }
    assert holders == {"first_byte_timeout": shown, "total_timeout": "no limit"}
    with override_settings(OLLA_FIRST_BYTE_TIMEOUT=60):
        form = EndpointForm(instance=Endpoint(backend_type=kind))
    assert form.fields["first_byte_timeout"].widget.attrs["placeholder"] == "60"


def test_it_takes_a_path_of_the_messages_api_that_is_one(admin_client):
    for wrong in (
        "v1/messages",
        "/v1/chat/completions",
        "/../messages",
        "/a/./messages",
        "/v1/messages?x=1",
        "/m\n",
    ):
        assert any("ends in /messages" in text for text in refusals(add(admin_client, anthropic_path=wrong))), (
            wrong
        )
    add(admin_client, anthropic_path="/anthropic/v1/messages", anthropic_mode="passthrough")
    row = Endpoint.objects.get()
    assert (row.anthropic_path, row.anthropic_mode) == ("/anthropic/v1/messages", "passthrough")
