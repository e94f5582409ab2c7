"""Secret values: never shown by accident, and `${ENV}` placeholders expanded by a stated rule. (pure)

A stored credential is text that may hold `${NAME}`, `${NAME:-default}` or `${file:name}`. Only names that match
the allowed patterns are read, and never one the product itself uses: an operator who may edit an endpoint must
not be able to send this server's own keys somewhere. Files are read by `endpoints.secret_files`. What is read is
not looked at for placeholders again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NoReturn

PLACEHOLDER = re.compile(
    r"\$\{(?:file:(?!-)(?P<file>[^}]*)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?)\}"
)
# Environment names read by this product (endpoints/conf.py, olla_site/settings.py) all start so.
OWN_PREFIX = "OLLA_"
OWN_EXCEPTION = "OLLA_BACKEND_"
OWN_NAMES = frozenset({"SECRET_KEY", "DJANGO_SETTINGS_MODULE", "DATABASE_URL"})
MASK = "***"
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Secret:
    """A string whose `str`, `repr` and formatting are `***`; `reveal()` gives it to the one who sends it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Call only where it goes onto the wire or into encryption."""
        return self._text

    def __str__(self) -> str:
        return MASK

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret is not pickled.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(("Secret", self._text))


class SecretError(ValueError):
    """A credential that cannot be used; the message names the variable or file, never a value."""


ReadFile = Callable[[str], str]


def refuse_files(name: str) -> str:
    """For callers that read no files."""
    raise SecretError(f"The secret file {name} may not be read here.")


def may_read_env(name: str, allow: Iterable[str]) -> bool:
    """Whether `${name}` may be expanded: allowed by a pattern and not one of the product's own settings."""
    folded = name.upper()  # where names have no case, any spelling reads the same variable
    if folded in OWN_NAMES or (folded.startswith(OWN_PREFIX) and not folded.startswith(OWN_EXCEPTION)):
        return False
    return any(fnmatchcase(name, pattern) for pattern in allow)


def expand_placeholders(
    text: str, env: Mapping[str, str], allow: Iterable[str], read_file: ReadFile = refuse_files
) -> str:
    """`text` with every `${NAME}` and `${NAME:-default}` replaced from `env`, every `${file:name}` by `read_file`.

    A line break at the end of a value, which files leave there, is taken off. Raises SecretError when a name is
    not allowed, when it is unset (or empty) and has no default, when a default holds another placeholder, and
    when the result could end a header line.
    """
    allowed = tuple(allow)

    def replace(match: re.Match[str]) -> str:
        if match["file"] is not None:
            return read_file(match["file"])
        name, default = match["name"], match["default"]
        if not may_read_env(name, allowed):
            raise SecretError(f"The environment variable {name} may not be read (see OLLA_ENV_ALLOW).")
        if default is not None and "${" in default:
            raise SecretError(f"The default of {name} holds another placeholder, which is not read.")
        value = env.get(name, "").rstrip("\r\n") or default
        if value is None:
            raise SecretError(f"The environment variable {name} is not set.")
        return value

    expanded = PLACEHOLDER.sub(replace, text)
    if CONTROL.search(expanded):
        names = ", ".join(placeholder_names(text)) or "The credential"
        raise SecretError(f"{names} holds a line break or another control character.")
    return expanded


def placeholder_names(text: str) -> list[str]:
    """The names of variables and files that `text` refers to, in order."""
    return [match["name"] or match["file"] for match in PLACEHOLDER.finditer(text)]


def file_names(text: str) -> list[str]:
    """The secret files that `text` refers to, in order."""
    return [match["file"] for match in PLACEHOLDER.finditer(text) if match["file"] is not None]
