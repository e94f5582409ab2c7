"""The id of a request: the client's own when it is fit to be echoed, else a fresh one. (pure)"""

from __future__ import annotations

import re
import uuid

# Printable ASCII without spaces: nothing that could end a header line or a log line.
_FIT = re.compile(rb"[\x21-\x7e]{1,128}")


def choose_request_id(header: bytes | None) -> str:
    """The value of X-Request-ID when it is 1 to 128 bytes of 0x21-0x7E, else a fresh random hex id."""
    if header is not None and _FIT.fullmatch(header):
        return header.decode("ascii")
    return uuid.uuid4().hex
