"""CA files: only PEM files below one folder can be named, so a form cannot probe this machine's files."""

from __future__ import annotations

import ssl
from pathlib import Path

from django.conf import settings

from endpoints.conf import conf


class CaFileError(ValueError):
    """A CA file that cannot be used; the message says why and what to do."""


def ca_folder() -> Path:
    """The folder of setting OLLA_CA_DIR, resolved."""
    return Path(conf().ca_dir or settings.DATA_DIR / "ca").resolve()


def find_ca_file(text: str) -> str:
    """The absolute path of a CA file given by name or path. Raises CaFileError."""
    folder = ca_folder()
    path = (folder / text.strip()).resolve()
    if not path.is_relative_to(folder):
        raise CaFileError(f"CA files are read from {folder} only (setting OLLA_CA_DIR).")
    if not path.is_file():
        raise CaFileError(f"There is no such file in {folder}.")
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        raise CaFileError("The file holds no certificate in PEM form, or cannot be read.") from error
    return str(path)
