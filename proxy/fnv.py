"""FNV-1a: the hash that session keys (64 bits) and the public ids of endpoints (32 bits) are written in. (pure)

http://www.isthe.com/chongo/tech/comp/fnv/ (Fowler, Noll, Vo). Plain Python needs about 90 ns a byte, so
`Hasher` remembers what it hashed before: the turns of a conversation repeat their beginning. It remembers by
a keyed digest, never the text itself.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

_OFFSET_BASIS = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_MASK = 0xFFFFFFFFFFFFFFFF
_OFFSET_BASIS_32 = 0x811C9DC5
_PRIME_32 = 0x01000193
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Below this, hashing costs no more than looking it up.
_WORTH_REMEMBERING = 24
# Beyond this, the loop would hold up every other request (64 KiB take 6 ms): the text is digested in C first.
_LONGEST_EXACT = 4096


def fnv1a_64(data: bytes) -> int:
    """The FNV-1a hash of `data`, byte for byte as published."""
    value = _OFFSET_BASIS
    for byte in data:
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


def fnv1a_32(data: bytes) -> int:
    """The same in 32 bits."""
    value = _OFFSET_BASIS_32
    for byte in data:
        value = ((value ^ byte) * _PRIME_32) & 0xFFFFFFFF
    return value


def base36(number: int) -> str:
    """A number of 0 or more in digits and lower-case letters."""
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"


class Hasher:
    """Hex digests with a bounded memory of earlier ones.

    Above 4096 bytes the digest is that of a BLAKE2b digest of the data: as unique, but not the published one.
    """

    __slots__ = ("_capacity", "_key", "_known")

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._key = secrets.token_bytes(16)
        self._known: dict[bytes, str] = {}

    def __len__(self) -> int:
        """How many digests are remembered."""
        return len(self._known)

    def hex(self, data: bytes) -> str:
        """16 lower-case hex digits."""
        if len(data) <= _WORTH_REMEMBERING:
            return f"{fnv1a_64(data):016x}"
        token = blake2b(data, digest_size=16, key=self._key).digest()
        found = self._known.get(token)
        if found is None:
            found = f"{fnv1a_64(data if len(data) <= _LONGEST_EXACT else token):016x}"
            if len(self._known) >= self._capacity:
                # Starting over is cheaper than order: at worst a busy prefix is hashed once more.
                self._known.clear()
            self._known[token] = found
        return found
