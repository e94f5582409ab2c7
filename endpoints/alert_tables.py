"""The tables of alerts: hooks that operators edit, and (apart from them) what was told."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from endpoints.alerts.judging import AlertKind, HookKind
from endpoints.fields import EncryptedTextField

KINDS = [(HookKind.JSON.value, "JSON"), (HookKind.CHAT.value, "Chat (Slack, Mattermost)")]
EVENTS = [
    (AlertKind.ENDPOINT.value, "An endpoint goes down or comes back"),
    (AlertKind.BREAKER.value, "A breaker opens"),
    (AlertKind.REQUEST_LOG.value, "The request log drops rows"),
    (AlertKind.PROBER.value, "The prober is silent, or back"),
]


class AlertHook(models.Model):
    """A webhook that is told when something breaks."""

    name = models.CharField(max_length=100, unique=True, help_text="For this list and the log.")
    kind = models.CharField(max_length=20, choices=KINDS, default=HookKind.JSON.value)
    url = EncryptedTextField("URL", blank=True, help_text="Kept secret, for it may hold a token.")
    events = models.CharField(max_length=200, default=",".join(each.value for each in AlertKind))
    enabled = models.BooleanField(default=True)

    class Meta:
        verbose_name = "alert hook"
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name

    def event_names(self) -> list[str]:
        """The kinds of alerts it is told of."""
        return [part for part in self.events.split(",") if part]


class AlertState(models.Model):
    """What was told of one fact; written by machines, compare-and-set on `version`."""

    key = models.CharField(max_length=200, unique=True)
    is_bad = models.BooleanField(default=False)
    differs_since = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    version = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.key
