"""CA files: only PEM files below one folder can be named, so a form cannot probe this machine's files."""

from __future__ import annotations

import ssl
from pathlib import Path

from endpoints.conf import conf


class CaFileError(ValueError):
    """A CA file that cannot be used; the message says why and what to do."""


def resolve_ca_file(name: str) -> str:
    """The absolute path of the CA file stored as `name`; empty for none. Raises CaFileError."""
    if not name:
        return ""
    folder = Path(conf().ca_dir).resolve() if conf().ca_dir else None
    if folder is None:
        raise CaFileError("No folder for CA files is set (OLLA_CA_DIR): only the system's authorities are there.")
    if Path(name).is_absolute():
        raise CaFileError("Enter the file's name in the folder OLLA_CA_DIR, not a path of this machine.")
    try:
        path = (folder / name).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle, a name too long
        raise CaFileError("This is not a name of a file.") from error
    if not path.is_relative_to(folder):
        raise CaFileError("CA files are read from the folder OLLA_CA_DIR only.")
    if not path.is_file():
        raise CaFileError(f"There is no CA file {name} in the folder OLLA_CA_DIR.")
    return str(path)


def check_ca_file(name: str) -> None:
    """Refuse what holds no certificate. Raises CaFileError."""
    path = resolve_ca_file(name)
    try:
        ssl.create_default_context(cafile=path or None)
    except (OSError, ssl.SSLError) as error:
        raise CaFileError("The file holds no certificate in PEM form, or cannot be read.") from error
