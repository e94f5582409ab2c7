"""What a first start needs: tables, and one account whose random password is printed once.

    prepare(stdout)  called by runserver, serve and demo before they listen; does nothing when all is there

Two starts at once are safe: a lock file in the data folder lets one of them work and the other wait.
"""

from __future__ import annotations

import io
import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.files import locks
from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.exceptions import (
    AmbiguityError,
    BadMigrationError,
    InconsistentMigrationHistory,
    NodeNotFoundError,
)
from django.db.migrations.executor import MigrationExecutor

from endpoints.conf import conf
from endpoints.lookup import WILDCARDS

LOCK_NAME = "first_start.lock"
ACCOUNT = "admin"
MIGRATION_ERRORS = (
    DatabaseError, AmbiguityError, BadMigrationError, InconsistentMigrationHistory, NodeNotFoundError,
)  # fmt: skip


def prepare(stdout: Any, host: str = "", port: int = 0) -> None:
    """Bring the database up to date and make the first account. Raises CommandError saying what to do.

    `host` and `port` are where the server will listen; port 0 means that it is not known yet.
    """
    with (settings.DATA_DIR / LOCK_NAME).open("w") as lock:
        locks.lock(lock, locks.LOCK_EX)
        try:
            if migrate():
                stdout.write("The database is ready.")
            password = create_first_account()
        finally:
            locks.unlock(lock)
    if password:
        stdout.write(build_notice(password, host or conf().host, port))
    stdout.flush()


def migrate() -> bool:
    """Apply pending migrations; whether there were any. Raises CommandError."""
    try:
        if not has_pending_migrations():
            return False
        call_command("migrate", interactive=False, verbosity=0, stdout=io.StringIO())
    except MIGRATION_ERRORS as error:
        raise CommandError(explain(error)) from error
    return True


def has_pending_migrations() -> bool:
    """Whether the database lacks a migration. Raises what the database raises."""
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def explain(error: Exception) -> str:
    """What failed and what can be done about it."""
    database = connections[DEFAULT_DB_ALIAS].settings_dict["NAME"]
    return (
        f"The database {database} could not be brought up to date: {error}\n"
        "Nothing was started. Check that the disk is not full, that the file and its folder belong to this "
        "user, and that no other program holds it. A file that is damaged can be restored from a backup, or "
        "moved away: then a new one is made. To see more, run: manage.py migrate"
    )


def create_first_account() -> str:
    """Make the superuser `admin` when there is no account at all; its password, or empty text.

    The password exists in this process and on the screen only: it is in no log and cannot be read again.
    """
    users = get_user_model()
    if users._default_manager.exists():
        return ""
    password = secrets.token_urlsafe(15)
    users._default_manager.create_superuser(ACCOUNT, password=password)
    return password


def build_notice(password: str, host: str, port: int) -> str:
    """What the first start prints, once."""
    line = "-" * 72
    return (
        f"\n{line}\n"
        "An administrator account was created. This password is shown only now:\n\n"
        f"    user name   {ACCOUNT}\n"
        f"    password    {password}\n\n"
        f"Sign in at {build_address(host, port)}\n"
        f"Another password: manage.py changepassword {ACCOUNT}\n"
        f"{line}\n"
    )


def build_address(host: str, port: int) -> str:
    """The admin's address for a browser on this machine."""
    if not port:
        return "/admin/ of the address below"
    bare = host.strip("[]")
    shown = "localhost" if bare in WILDCARDS or bare == "127.0.0.1" else bare
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{'https' if settings.HTTPS else 'http'}://{shown}:{port}/admin/"
