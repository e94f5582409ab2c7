"""The portal has no tables; this one exists for its permissions alone."""

from __future__ import annotations

from django.db import models


class Portal(models.Model):
    """Carries the rights of `access.py` as permissions."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = [  # noqa: RUF012 - Django reads this as plain data
            ("view", "Look at the portal"),
            ("operate", "Drain, resume, disable and probe endpoints"),
            ("try", "Send requests from the playground"),
            ("administer", "Add endpoints and change rules"),
        ]

    def __str__(self) -> str:
        return "portal"
