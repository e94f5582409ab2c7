"""Single fields of JSON objects other servers send: the usable value or nothing, never an error. (pure)

What is of the wrong type, too long or unprintable counts as absent. Unprintable texts (control characters,
lone surrogates) fit no header and no table.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

LONGEST_NAME = 500
LONGEST_WORDS = 50
LARGEST_NUMBER = 2**63 - 1  # what a big integer column holds
LAST_SECOND = 253_402_300_799.0  # the end of the year 9999, the last a datetime holds

Entry = Mapping[str, Any]


def read_name(entry: Entry, *keys: str) -> str:
    """The first usable model name."""
    for key in keys:
        value = entry.get(key)
        if isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_NAME and value.isprintable():
            return value.strip()
    return ""


def read_text(entry: Entry, longest: int, *keys: str) -> str:
    """The first usable text of at most `longest` characters."""
    for key in keys:
        value = entry.get(key)
        if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable():
            return value
    return ""


def read_words(entry: Entry, key: str) -> tuple[str, ...]:
    """The short texts of a list, or the keys that are true in an object of yes and no."""
    values = entry.get(key)
    if isinstance(values, dict):
        values = [name for name, value in values.items() if value is True]
    if not isinstance(values, list):
        return ()
    return tuple(v for v in values[:LONGEST_WORDS] if isinstance(v, str) and 0 < len(v) <= 40 and v.isprintable())


def read_number(entry: Entry, *keys: str) -> int | None:
    """The first whole number above zero."""
    for key in keys:
        value = entry.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_NUMBER:
            return value
    return None


def read_object(entry: Entry, key: str) -> Entry:
    """The object under `key`; empty when there is none."""
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def read_objects(entry: Entry, key: str) -> list[Entry]:
    """The objects of the list under `key`."""
    value = entry.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def read_moment(entry: Entry, key: str) -> float | None:
    """Seconds since the epoch from a number of seconds or an RFC 3339 text; None for zero times and nonsense."""
    value = entry.get(key)
    if isinstance(value, str):
        value = _parse_rfc3339(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 < value <= LAST_SECOND else None


def _parse_rfc3339(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
