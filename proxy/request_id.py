"""The id of a request: the client's own when it is fit to be echoed, else a fresh one. (pure)"""

from __future__ import annotations

import os
import re
import time
from contextvars import ContextVar

# Printable ASCII without spaces: nothing that could end a header line or a log line.
_FIT = re.compile(rb"[\x21-\x7e]{1,128}")

# The request that the running task works for, "" where there is none: log records carry it.
current_request: ContextVar[str] = ContextVar("current_request", default="")

# The fixed bits of a UUID of version 7 (RFC 9562, 5.7): Unix milliseconds, then 74 random bits. Ids that grow with
# time keep the request log's index of them dense: a random place in it for each row costs as much as the row.
_CLEARED = (1 << 80) - 1 ^ (0xF << 76) ^ (0x3 << 62)
_VERSION_7 = (0x7 << 76) | (0x2 << 62)


def choose_request_id(header: bytes | None) -> str:
    """The value of X-Request-ID when it is 1 to 128 bytes of 0x21-0x7E, else a fresh UUID in hex."""
    if header is not None and _FIT.fullmatch(header):
        return header.decode("ascii")
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds << 80 | _take_random() & _CLEARED | _VERSION_7:032x}"


# Random numbers of 80 bits for ids to come: the system is asked for many at a time.
_stock: list[int] = []
_STOCK = 64
os.register_at_fork(after_in_child=_stock.clear)


def _take_random() -> int:
    """One that nobody else gets, in whatever thread."""
    try:
        return _stock.pop()
    except IndexError:
        raw = os.urandom(10 * _STOCK)
        _stock.extend(int.from_bytes(raw[at : at + 10], "big") for at in range(10, len(raw), 10))
        return int.from_bytes(raw[:10], "big")
