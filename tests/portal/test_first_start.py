"""The first start: tables, one account, a password that is shown once."""

from __future__ import annotations

import io
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import CommandError

from olla_site import first_start

ROOT = Path(__file__).resolve().parent.parent.parent
PREPARE = """
import sys, django
django.setup()
from olla_site import first_start
first_start.prepare(sys.stdout, "", 40114)
"""


def start(data: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "OLLA_DATA_DIR": str(data), "DJANGO_SETTINGS_MODULE": "olla_site.settings"}
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE],
        cwd=ROOT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_it_makes_tables_and_one_account_when_two_start_at_once(tmp_path):
    outputs = [process.communicate(timeout=120) for process in [start(tmp_path), start(tmp_path)]]

    texts = [out for out, _ in outputs]
    assert "".join(error for _, error in outputs) == ""
    assert sum("shown only now" in text for text in texts) == 1
    users = sqlite3.connect(tmp_path / "olla.sqlite3").execute("select username, is_superuser from auth_user")
    assert users.fetchall() == [("admin", 1)]


def test_it_says_nothing_the_second_time(tmp_path):
    start(tmp_path).communicate(timeout=120)

    assert start(tmp_path).communicate(timeout=120) == ("", "")


def test_it_says_what_to_do_about_a_damaged_database(tmp_path):
    (tmp_path / "olla.sqlite3").write_bytes(b"no database at all, but long enough to be read" * 100)

    _, error = start(tmp_path).communicate(timeout=120)

    assert "CommandError" in error
    assert "could not be brought up to date" in error
    assert "restored from a backup" in error


def test_it_keeps_the_password_out_of_the_data_folder(tmp_path):
    out, _ = start(tmp_path).communicate(timeout=120)
    password = re.search(r"password {2,}(\S+)", out)
    assert password

    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert password[1].encode() not in path.read_bytes()


@pytest.mark.django_db
def test_it_prints_a_password_that_works(capsys):
    out = io.StringIO()

    first_start.prepare(out, "0.0.0.0", 40114)

    password = re.search(r"password {2,}(\S+)", out.getvalue())
    assert password
    assert len(password[1]) >= 20
    assert "http://localhost:40114/admin/" in out.getvalue()
    assert "manage.py changepassword admin" in out.getvalue()
    assert authenticate(username="admin", password=password[1])


@pytest.mark.django_db
def test_it_never_makes_the_same_password_twice():
    first = first_start.create_first_account()
    get_user_model().objects.all().delete()

    assert first_start.create_first_account() != first


@pytest.mark.django_db
def test_it_leaves_an_installation_with_accounts_alone():
    get_user_model().objects.create_user("somebody")
    out = io.StringIO()

    first_start.prepare(out)

    assert out.getvalue() == ""
    assert get_user_model().objects.count() == 1


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("127.0.0.1", 40114, "http://localhost:40114/admin/"),
        ("0.0.0.0", 80, "http://localhost:80/admin/"),
        ("::1", 40114, "http://[::1]:40114/admin/"),
        ("[::]", 40114, "http://localhost:40114/admin/"),
        ("gpu.example", 1, "http://gpu.example:1/admin/"),
        ("127.0.0.1", 0, "/admin/ of the address below"),
    ],
)
def test_it_prints_an_address_that_a_browser_can_open(host, port, address):
    assert first_start.build_address(host, port) == address


def test_it_explains_with_the_cause():
    assert "disk I/O error" in first_start.explain(CommandError("disk I/O error"))
