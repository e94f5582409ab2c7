"""Secrets planted by tests, and the watch that no log line of the whole run ever shows one.

Tests use these where a credential is wanted. `tests/conftest.py` fails the session when one is seen: in a record
of this process, with its traceback, or in what a server under test wrote.
"""

from __future__ import annotations

import logging

BEARER = "canary-bearer-8d1f0c"
API_KEY = "canary-api-key-52ab7e"
PASSWORD = "canary-password-e93d44"
COOKIE = "canary-cookie-06c2fa"
QUERY = "canary-query-7b15d8"
OPENAI_KEY = "sk-canary-c40e9b2277"
# Those of older tests, stored in endpoints or sent by clients.
_OTHERS = ("sk-tiger-token-1234567890", "zebra-header-value", "sk-own")
ALL = (BEARER, API_KEY, PASSWORD, COOKIE, QUERY, OPENAI_KEY, *_OTHERS)

# Loggers whose records do not reach the root.
_APART = ("olla_site.access",)


def find_canary(text: str) -> str | None:
    """The first planted secret in `text`."""
    return next((canary for canary in ALL if canary in text), None)


class CanaryWatch(logging.Handler):
    """Looks through every record as a handler of the product would show it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.looked_at = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Look through one record."""
        self.look(self.format(record), f"{record.name} ({record.pathname}:{record.lineno})")

    def look(self, text: str, where: str) -> None:
        """Look through any text; `where` names it in the report."""
        self.looked_at += 1
        canary = find_canary(text)
        if canary is not None:
            line = next(line for line in text.splitlines() if canary in line)
            self.seen.append(f"{where}: {line[:500]}")

    def install(self) -> None:
        """Look at everything from now on."""
        for name in ("", *_APART):
            logging.getLogger(name).addHandler(self)

    def is_installed(self) -> bool:
        """Whether nobody has taken it out."""
        return all(self in logging.getLogger(name).handlers for name in ("", *_APART))


watch = CanaryWatch()
