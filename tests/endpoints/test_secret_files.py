"""Secret files: read below one folder only, whatever an operator types."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.urls import reverse

from endpoints import loading, records
from endpoints.credentials import read_access
from endpoints.models import Endpoint, Revision
from endpoints.recording import build_target
from endpoints.secret_files import MOST_BYTES, read_secret_file, stamp_files
from endpoints.secrets import SecretError
from tests.endpoints.desk import LIST, add, edit_address, error_texts, make_endpoint

VALUE = "sk-file-tiger"


@pytest.fixture
def folder(settings, tmp_path) -> Path:
    """The folder of secrets, beside a file that is none of its."""
    inside = tmp_path / "secrets"
    inside.mkdir()
    settings.OLLA_SECRETS_DIR = str(inside)
    (tmp_path / "outside").write_text("sk-outside")
    (inside / "key").write_text(f"{VALUE}\n")
    return inside


def problem_of(name: str) -> str:
    with pytest.raises(SecretError) as caught:
        read_secret_file(name)
    return str(caught.value)


def test_it_reads_a_file_without_the_space_around_it(folder):
    (folder / "team").mkdir()
    (folder / "team" / "a b.txt").write_text("  ${HOME} \r\n")

    assert read_secret_file("key") == VALUE
    assert read_secret_file("team/a b.txt") == "${HOME}"


def test_it_follows_links_inside_the_folder(folder):
    (folder / "..data").mkdir()
    (folder / "..data" / "token").write_text("linked")
    (folder / "token").symlink_to("..data/token")

    assert read_secret_file("token") == "linked"


@pytest.mark.parametrize(
    "name",
    ["../outside", "team/../../outside", "/etc/passwd", "", " ", ".", "..", "a\x00b", "a\nb", "./../outside"],
)
def test_it_refuses_names_that_lead_elsewhere(folder, name):
    assert problem_of(name)


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "/proc/self/environ"])
def test_it_refuses_links_that_lead_out(folder, target):
    (folder / "link").symlink_to(target)

    assert problem_of("link") == "The secret file link leads out of the folder OLLA_SECRETS_DIR."


def test_it_refuses_links_of_folders_that_lead_out(folder):
    (folder / "up").symlink_to("..", target_is_directory=True)

    assert "leads out" in problem_of("up/outside")


def test_it_refuses_everything_without_a_folder(settings):
    settings.OLLA_SECRETS_DIR = ""

    assert "OLLA_SECRETS_DIR" in problem_of("key")


@pytest.mark.parametrize("above", [0, 1])
def test_it_refuses_the_products_own_files(settings, tmp_path, above):
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    (settings.DATA_DIR / "secret_key").write_text("own")
    settings.OLLA_SECRETS_DIR = str(tmp_path if above else settings.DATA_DIR)

    assert "belongs to this server itself" in problem_of("data/secret_key" if above else "secret_key")


def test_it_reads_from_a_folder_inside_the_data_folder(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("fine")
    settings.OLLA_SECRETS_DIR = str(tmp_path / "secrets")

    assert read_secret_file("key") == "fine"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"\xff\xfe", "is not text"),
        (b"a\nX-Evil: 1", "more than one line"),
        (b"a\x00b", "more than one line"),
        (b"x" * (MOST_BYTES + 1), "is larger than"),
    ],
)
def test_it_refuses_content_no_header_can_carry(folder, content, said):
    (folder / "key").write_bytes(content)

    assert said in problem_of("key")
    assert "Evil" not in problem_of("key")


def test_it_does_not_wait_for_a_pipe(folder):
    os.mkfifo(folder / "pipe")

    assert problem_of("pipe") == "The secret file pipe is not a file."


def test_it_survives_links_in_a_circle_and_endless_names(folder):
    (folder / "round").symlink_to("round")

    assert problem_of("round")
    assert problem_of("x" * 5000)
    assert stamp_files(["round", "x" * 5000])


def test_it_says_what_is_missing_or_no_file(folder):
    (folder / "dir").mkdir()

    assert problem_of("gone") == "The secret file gone is not there."
    assert problem_of("dir") == "The secret file dir is not a file."


def test_it_notices_that_a_file_changed(folder):
    before = stamp_files(["key", "gone", "../outside"])
    assert stamp_files(["../outside", "gone", "key", "key"]) == before
    (folder / "gone").write_text("here")

    assert stamp_files(["key", "gone", "../outside"]) != before


# --------------------------------------------------------------------------------------- in endpoints

pytestmark = pytest.mark.django_db
REFERENCE = "${file:key}"


def headers_of(endpoint: Endpoint) -> dict[str, str]:
    return {name.decode(): value.reveal() for name, value in read_access(endpoint, {}).headers}


def test_it_sends_what_the_file_holds(folder):
    row = make_endpoint(auth_type="bearer", auth_secret=REFERENCE, extra_headers=f"X-Team: a-{REFERENCE}")

    assert headers_of(row) == {"X-Team": f"a-{VALUE}", "Authorization": f"Bearer {VALUE}"}


def test_it_reads_nothing_named_inside_a_value(folder, monkeypatch):
    """What a file or a variable holds is text, whatever it looks like."""
    (folder / "key").write_text("${file:other}${OPENAI_API_KEY}")
    row = make_endpoint(auth_type="bearer", auth_secret="${DEEP_TOKEN}", extra_headers=f"X-A: {REFERENCE}")

    found = read_access(row, {"DEEP_TOKEN": REFERENCE, "OPENAI_API_KEY": "sk"}).headers

    assert [value.reveal() for _, value in found] == ["${file:other}${OPENAI_API_KEY}", f"Bearer {REFERENCE}"]


def test_it_makes_a_missing_file_a_configuration_error_that_names_it(folder, admin_client):
    row = make_endpoint(auth_type="bearer", auth_secret="${file:gone}")

    record = records.build_record(row, (), {})

    assert (record.status, record.headers) == ("config_error", ())
    assert record.config_problem == "The secret file gone is not there."
    assert build_target(row, {}).problem == record.config_problem
    for address in (reverse(LIST), edit_address(row)):
        page = admin_client.get(address).content.decode()
        assert "The secret file gone is not there." in page
        assert "configuration error" in page


def test_it_saves_a_reference_to_a_missing_file_with_a_warning(folder, admin_client):
    page = add(admin_client, auth_type="bearer", auth_secret="${file:gone}")

    assert any("The secret file gone is not there." in str(each) for each in page.context["messages"])
    assert Endpoint.objects.exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "link"])
def test_it_refuses_to_save_a_reference_out_of_the_folder(folder, admin_client, name):
    (folder / "link").symlink_to("../outside")

    page = add(admin_client, auth_type="bearer", auth_secret=f"${{file:{name}}}")

    assert error_texts(page.content.decode())
    assert not Endpoint.objects.exists()


def test_it_shows_a_reference_but_never_what_it_holds(folder, admin_client):
    row = make_endpoint(auth_type="bearer", auth_secret=REFERENCE, extra_headers=f"X-Team: {REFERENCE}")

    page = admin_client.get(edit_address(row)).content.decode()

    assert page.count(REFERENCE) == 2
    assert VALUE not in page


@pytest.mark.django_db(transaction=True)
def test_it_takes_a_new_content_up_without_an_edit(folder):
    make_endpoint(auth_type="bearer", auth_secret=REFERENCE)
    try:
        first = loading.refresh()
        assert loading.refresh() is first
        before = Revision.objects.get().number
        (folder / "key").write_text("sk-rotated")

        second = loading.refresh()

        assert second.endpoints[0].headers[0][1].reveal() == "Bearer sk-rotated"
        assert Revision.objects.get().number == before
    finally:
        loading.forget()
