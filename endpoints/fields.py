"""EncryptedTextField: text that is encrypted in the database and a Secret in Python."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.signals import setting_changed
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from endpoints.secrets import MASK, Secret


@lru_cache(maxsize=1)
def _cipher() -> MultiFernet:
    """Encrypts with the first of ENCRYPTION_KEYS, decrypts with any (Fernet specification)."""
    return MultiFernet([Fernet(key) for key in settings.ENCRYPTION_KEYS])


if TYPE_CHECKING:
    # Generic for the type checker only: Django's own class takes no parameters at run time.
    _TextField = models.TextField[str | Secret, Secret]
else:
    _TextField = models.TextField


class SecretAttribute(DeferredAttribute):
    """Makes whatever is assigned a Secret, so that no row in memory holds plain text to print by accident."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = self.field.to_python(value)


class EncryptedTextField(_TextField):
    """Holds a Secret; empty text is stored as empty, all else as a Fernet token.

    A token that no key opens (the key file was lost or replaced) becomes an empty Secret marked
    `unreadable`, so that pages and routing go on and can say what to do.
    """

    descriptor_class = SecretAttribute

    def from_db_value(self, value: str | None, *_: object) -> Secret:
        return decrypt(value)

    def to_python(self, value: Any) -> Secret:
        return value if isinstance(value, Secret) else Secret(value or "")

    def get_prep_value(self, value: Any) -> str:
        if isinstance(value, UnreadableSecret):
            return value.token
        text = value.reveal() if isinstance(value, Secret) else value or ""
        return encrypt(text)

    def value_to_string(self, obj: models.Model) -> str:
        """What serialisers and dumps get: never the secret."""
        return MASK if getattr(obj, self.attname) else ""

    def get_lookup(self, lookup_name: str) -> Any:
        """No searching in secrets: each encryption of the same text differs."""
        raise TypeError(f"{self.name} is encrypted and cannot be searched.")


class UnreadableSecret(Secret):
    """Stands for a stored value that no encryption key opens; saving it again keeps what is stored."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        super().__init__("")
        self.token = token


def encrypt(text: str) -> str:
    """A Fernet token for `text`; empty stays empty."""
    return _cipher().encrypt(text.encode()).decode() if text else ""


def decrypt(token: str | None) -> Secret:
    """The Secret inside a token; UnreadableSecret when no key opens it."""
    if not token:
        return Secret("")
    try:
        return Secret(_cipher().decrypt(token.encode()).decode())
    except InvalidToken:
        return UnreadableSecret(token)


def _forget(*, setting: str, **_: object) -> None:
    if setting == "ENCRYPTION_KEYS":
        _cipher.cache_clear()


setting_changed.connect(_forget, dispatch_uid="endpoints.fields")
