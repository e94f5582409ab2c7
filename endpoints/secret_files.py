"""Secret files: `${file:name}` in a credential reads a file below one folder, and nothing else.

The folder is setting OLLA_SECRETS_DIR; unset, no file is read. A name leads neither out of the folder (dots,
absolute paths, links) nor to this product's own keys and database.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings

from endpoints.conf import conf
from endpoints.secrets import CONTROL, SecretError

MOST_BYTES = 16_384
Stamp = tuple[tuple[str, int, int], ...]


def secrets_folder() -> Path | None:
    """The folder of setting OLLA_SECRETS_DIR, resolved; None when there is none."""
    return Path(conf().secrets_dir).resolve() if conf().secrets_dir else None


def read_secret_file(name: str) -> str:
    """The content of a secret file without surrounding white space. Raises SecretError, which names it."""
    path = find_secret_file(name)
    try:
        text = _read(path, name).decode().strip()
    except UnicodeDecodeError as error:
        raise SecretError(f"The secret file {name} is not text (UTF-8).") from error
    if not text:
        raise SecretError(f"The secret file {name} is empty.")
    if CONTROL.search(text):
        raise SecretError(f"The secret file {name} holds more than one line.")
    return text


def find_secret_file(name: str) -> Path:
    """The path a name stands for. Raises SecretError when it may not be read, there or not."""
    folder = secrets_folder()
    if folder is None:
        raise SecretError(
            f"The secret file {name} may not be read: no folder for such files is set (OLLA_SECRETS_DIR)."
        )
    if not name.isprintable() or not name.strip() or Path(name).is_absolute() or ".." in Path(name).parts:
        raise SecretError("A secret file is named by its path below the folder OLLA_SECRETS_DIR, without dots.")
    try:
        path = (folder / name).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle, a name too long
        raise SecretError("A secret file is named by its path below the folder OLLA_SECRETS_DIR.") from error
    if not path.is_relative_to(folder) or path == folder:
        raise SecretError(f"The secret file {name} leads out of the folder OLLA_SECRETS_DIR.")
    own = Path(settings.DATA_DIR).resolve()
    if own.is_relative_to(folder) and path.is_relative_to(own):
        raise SecretError(f"The secret file {name} belongs to this server itself and may not be read.")
    return path


def _read(path: Path, name: str) -> bytes:
    # NONBLOCK: a pipe put there must not hold up the reader. NOFOLLOW: the path is resolved already.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SecretError(f"The secret file {name} is not there.") from error
    except OSError as error:
        raise SecretError(f"The secret file {name} cannot be read: {error.strerror}.") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SecretError(f"The secret file {name} is not a file.")
        content = os.read(descriptor, MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise SecretError(f"The secret file {name} is larger than {MOST_BYTES} bytes.")
    return content


def stamp_files(names: Iterable[str]) -> Stamp:
    """What changes when one of the files is replaced, edited or gone."""
    found = []
    for name in sorted(set(names)):
        try:
            status = find_secret_file(name).stat()
        except (SecretError, OSError):
            found.append((name, 0, 0))
        else:
            found.append((name, status.st_mtime_ns, status.st_size))
    return tuple(found)
