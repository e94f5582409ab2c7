"""Secrets as forms see them: kept, removed or replaced, and never shown. (pure)

Extra headers are edited as `Name: value` lines in which a stored value is shown as `********`; a line sent
back that way keeps its value. A value that is nothing but a `${NAME}` placeholder is no secret and is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from endpoints.secrets import PLACEHOLDER, Secret

KEPT = "********"
NO_SECRET = Secret("")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


class SecretAction(StrEnum):
    """What a form says of one stored secret."""

    KEEP = "keep"
    REMOVE = "remove"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class SecretEdit:
    """One secret of a form; `value` counts for REPLACE only."""

    action: SecretAction = SecretAction.KEEP
    value: Secret = NO_SECRET

    def apply(self, stored: Secret) -> Secret:
        """What is stored afterwards."""
        if self.action is SecretAction.KEEP:
            return stored
        return self.value if self.action is SecretAction.REPLACE else NO_SECRET


KEEP = SecretEdit()


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """One `Name: value` line; `text` is kept as typed for lines without a colon."""

    name: str
    value: Secret
    has_colon: bool = True

    @property
    def is_kept(self) -> bool:
        """Whether the line asks for the stored value."""
        return self.value.reveal() == KEPT

    def build(self) -> str:
        """The line as it is stored."""
        return f"{self.name}: {self.value.reveal()}"


def parse_header_lines(text: Secret) -> Iterator[HeaderLine]:
    """The lines that are not blank, names and values stripped."""
    for line in text.reveal().splitlines():
        if line.strip():
            name, colon, value = line.partition(":")
            yield HeaderLine(name.strip(), Secret(value.strip()), bool(colon))


def is_header_name(text: str) -> bool:
    """Whether `text` can be the name of a header field."""
    return _TOKEN.fullmatch(text) is not None


def is_placeholder(value: Secret) -> bool:
    """Whether a value is one placeholder and nothing else (a default would be a literal, so it is hidden)."""
    match = PLACEHOLDER.fullmatch(value.reveal())
    return match is not None and match["default"] is None


def mask_header_lines(stored: Secret) -> str:
    """Stored headers for a form: names, and `********` for every value that is not a placeholder."""
    return "\n".join(
        line.build() if is_placeholder(line.value) else f"{line.name}: {KEPT}"
        for line in parse_header_lines(stored)
    )


def blank_header_lines(typed: Secret) -> str:
    """Headers as typed, for showing a refused form again: values just typed are left out."""
    shown = []
    for line in parse_header_lines(typed):
        if line.is_kept or is_placeholder(line.value):
            shown.append(line.build())
        elif line.has_colon and is_header_name(line.name):
            shown.append(f"{line.name}: ")
    return "\n".join(shown)


def restore_header_lines(typed: Secret, stored: Secret) -> tuple[list[HeaderLine], list[str]]:
    """Typed lines with kept values filled in from `stored`, and the names whose value is not there.

    The n-th kept line of a name takes the n-th stored value of that name.
    """
    values: dict[str, list[Secret]] = {}
    for line in parse_header_lines(stored):
        values.setdefault(line.name.lower(), []).append(line.value)
    lines, missing = [], []
    for line in parse_header_lines(typed):
        left = values.get(line.name.lower(), [])
        taken = left.pop(0) if left else None
        if line.is_kept and taken is None:
            missing.append(line.name)
        lines.append(HeaderLine(line.name, taken) if line.is_kept and taken is not None else line)
    return lines, missing


def kept_header_names(typed: Secret, stored: Secret) -> list[str]:
    """Names of the lines that ask for a stored value."""
    names = {line.name.lower() for line in parse_header_lines(stored)}
    return [line.name for line in parse_header_lines(typed) if line.is_kept and line.name.lower() in names]
