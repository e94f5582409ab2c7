"""The id of a request: the client's own when it is fit to be echoed, else a fresh one. (pure)"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar

# Printable ASCII without spaces: nothing that could end a header line or a log line.
_FIT = re.compile(rb"[\x21-\x7e]{1,128}")

# The request that the running task works for, "" where there is none: log records carry it.
current_request: ContextVar[str] = ContextVar("current_request", default="")

# A random UUID's fixed bits (RFC 9562, 5.4); uuid.uuid4() does the same in four times the time.
_CLEARED = (1 << 128) - 1 ^ (0xF << 76) ^ (0x3 << 62)
_VERSION_4 = (0x4 << 76) | (0x2 << 62)


def choose_request_id(header: bytes | None) -> str:
    """The value of X-Request-ID when it is 1 to 128 bytes of 0x21-0x7E, else a fresh random hex id."""
    if header is not None and _FIT.fullmatch(header):
        return header.decode("ascii")
    return f"{int.from_bytes(os.urandom(16), 'big') & _CLEARED | _VERSION_4:032x}"
