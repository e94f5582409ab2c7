"""System checks of the installation, with stable ids (docs/configuration.md lists them).

endpoints.E001  an OLLA_* value that does not parse
endpoints.E002  an entry of API_MIDDLEWARE that cannot be imported or is not async
endpoints.E003  the data folder cannot be written
endpoints.E004  no usable encryption key
endpoints.W001  an OLLA_* environment variable that nothing reads
endpoints.W002  a folder of OLLA_SECRETS_DIR or OLLA_CA_DIR that is not there or cannot be read
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.utils.module_loading import import_string

from endpoints.conf import Conf, conf, parse_option, read_option
from endpoints.secrets import OWN_EXCEPTION, OWN_PREFIX

# Read by olla_site/settings.py before Django is set up, and by the test run.
OUTSIDE_CONF = frozenset(
    {
        "OLLA_ALLOWED_HOSTS", "OLLA_CORS_ORIGINS", "OLLA_CSRF_TRUSTED_ORIGINS", "OLLA_DATA_DIR", "OLLA_DEBUG",
        "OLLA_ENCRYPTION_KEYS", "OLLA_HTTPS", "OLLA_LOG_FILE", "OLLA_LOG_FILE_COUNT", "OLLA_LOG_FILE_SIZE",
        "OLLA_LOG_FORMAT", "OLLA_LOG_LEVEL", "OLLA_SECRET_KEY", "OLLA_TIME_ZONE",
        "OLLA_SCREENSHOTS", "OLLA_TEST_SIZE",
    }
)  # fmt: skip


def known_names() -> frozenset[str]:
    """Every environment variable of ours that something reads."""
    return OUTSIDE_CONF | {f"{OWN_PREFIX}{field.name.upper()}" for field in dataclasses.fields(Conf)}


def check_values(**_: Any) -> list[CheckMessage]:
    """Each OLLA_* setting parses."""
    found: list[CheckMessage] = []
    for field in dataclasses.fields(Conf):
        raw = read_option(field)
        if raw is None:
            continue
        try:
            parse_option(field, raw)
        except (ValueError, TypeError) as error:
            name = f"{OWN_PREFIX}{field.name.upper()}"
            hint = f"{field.metadata['help']} The default is {field.default!r}."
            found.append(Error(f"{name} is {raw!r}: {error}.", hint=hint, id="endpoints.E001"))
    return found


def check_names(**_: Any) -> list[CheckMessage]:
    """No OLLA_* variable of the environment is a misspelling."""
    return list(find_unknown_names(os.environ))


def find_unknown_names(names: Iterable[str]) -> Iterable[CheckMessage]:
    """A warning for each name that begins like ours and is none; OLLA_BACKEND_* is for operators' own."""
    known = known_names()
    for name in sorted(names):
        if not name.startswith(OWN_PREFIX) or name.startswith(OWN_EXCEPTION) or name in known:
            continue
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {nearest[0]}?" if nearest else "docs/configuration.md lists every setting."
        yield checks.Warning(
            f"The environment variable {name} is set, but nothing reads it.", hint=hint, id="endpoints.W001"
        )


def check_api_middleware(**_: Any) -> list[CheckMessage]:
    """Everything on the machine door is async: one sync entry would cost each request a thread."""
    found: list[CheckMessage] = []
    for path in settings.API_MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError as error:
            found.append(Error(f"API_MIDDLEWARE: {path} cannot be imported: {error}", id="endpoints.E002"))
            continue
        if not getattr(middleware, "async_capable", False):
            hint = "Set async_capable = True once it works without blocking, or put it into MIDDLEWARE."
            found.append(Error(f"API_MIDDLEWARE: {path} is not async.", hint=hint, id="endpoints.E002"))
    return found


def check_data_folder(**_: Any) -> list[CheckMessage]:
    """Database, keys and lock files can be written."""
    try:
        with tempfile.TemporaryFile(dir=settings.DATA_DIR):
            return []
    except OSError as error:
        hint = "Set OLLA_DATA_DIR to a folder that belongs to the user the server runs as."
        message = f"The data folder {settings.DATA_DIR} cannot be written: {error.strerror}."
        return [Error(message, hint=hint, id="endpoints.E003")]


def check_file_folders(**_: Any) -> list[CheckMessage]:
    """The folders that credentials and certificates are read from are there; an unset one is not used."""
    found: list[CheckMessage] = []
    for name, folder in (("OLLA_SECRETS_DIR", conf().secrets_dir), ("OLLA_CA_DIR", conf().ca_dir)):
        if folder and not (Path(folder).is_dir() and os.access(folder, os.R_OK | os.X_OK)):
            message = f"{name} is {folder!r}, which is no folder this server can read."
            hint = "Endpoints that name a file in it get no requests. Create or mount it, or unset the variable."
            found.append(checks.Warning(message, hint=hint, id="endpoints.W002"))
    return found


def check_encryption_keys(**_: Any) -> list[CheckMessage]:
    """Stored credentials can be encrypted. The message counts keys, it never shows one."""
    hint = (
        "Make one with: python -c 'from cryptography.fernet import Fernet as F; print(F.generate_key().decode())'"
        ". Put the newest first; older ones stay for reading."
    )
    if not settings.ENCRYPTION_KEYS:
        return [Error("There is no encryption key.", hint=hint, id="endpoints.E004")]
    found: list[CheckMessage] = []
    for number, key in enumerate(settings.ENCRYPTION_KEYS, 1):
        try:
            Fernet(key)
        except (ValueError, TypeError):
            message = f"Encryption key {number} of {len(settings.ENCRYPTION_KEYS)} is not a Fernet key."
            found.append(Error(message, hint=hint, id="endpoints.E004"))
    return found


ALL = (
    check_values,
    check_names,
    check_api_middleware,
    check_data_folder,
    check_file_folders,
    check_encryption_keys,
)
