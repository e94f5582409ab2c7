"""Finding: one thing a review says of one field. (pure)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Errors prevent saving; warnings are shown and saved past."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """A message for the operator, without any value that may be secret."""

    field: str
    message: str
    severity: Severity


def error(field: str, message: str) -> Finding:
    """A finding that prevents saving."""
    return Finding(field, message, Severity.ERROR)


def warning(field: str, message: str) -> Finding:
    """A finding that is only told."""
    return Finding(field, message, Severity.WARNING)
