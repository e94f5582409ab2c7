"""What a browser sends, read without trust."""

from __future__ import annotations

_MOST_DIGITS = 18  # more do not fit the columns of any database


def read_key(text: str | None) -> int | None:
    """The key of a row; None for anything that is no number."""
    if not text or not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        return None
    return int(text)
