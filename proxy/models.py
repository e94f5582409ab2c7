"""The request log and its hourly roll-ups: machine tables, written only by `proxy.journal` and `proxy.roll_ups`.

Metadata only: no prompt, no answer, no header. Nothing on the request path imports this module.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from django.db import models

from proxy.record import Outcome

# A key is the millisecond a request ended, then which process wrote it, then a count: newest last in the one
# order there is, without a common counter.
KEY_SHIFT = 22
SEQUENCE_BITS = 12
_OUTCOMES = [(each.value, each.value.replace("_", " ")) for each in Outcome]


def key_at(unix_seconds: float) -> int:
    """The least key of requests that ended at this time or later."""
    return round(unix_seconds * 1000) << KEY_SHIFT


def time_of_key(key: int) -> datetime:
    """When the request of a key ended."""
    return datetime.fromtimestamp((key >> KEY_SHIFT) / 1000, UTC)


class RequestLog(models.Model):
    """One request that asked to be forwarded. `id` grows with the time it ended; `time` is when it came."""

    id = models.BigAutoField(primary_key=True)  # given by the journal; see KEY_SHIFT
    time = models.DateTimeField("came")
    request_id = models.CharField(max_length=128)
    client = models.CharField(max_length=64)
    peer = models.CharField(max_length=64)
    client_key = models.CharField(max_length=64, blank=True)
    method = models.CharField(max_length=16)
    path = models.CharField(max_length=1024)
    provider = models.CharField("route", max_length=100)
    model = models.CharField(max_length=200, blank=True)
    sent_model = models.CharField("model sent", max_length=200, blank=True)
    endpoint_id = models.BigIntegerField(null=True)  # no foreign key: the log outlives endpoints
    endpoint = models.CharField(max_length=100, blank=True)
    backend_type = models.CharField(max_length=40, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    status = models.PositiveSmallIntegerField(null=True, help_text="As sent; empty when the client left before.")
    outcome = models.CharField(max_length=16, choices=_OUTCOMES)
    error_code = models.CharField(max_length=32, blank=True)
    mode = models.CharField(max_length=16, blank=True)
    stream = models.BooleanField(default=False)
    request_bytes = models.BigIntegerField(default=0)
    response_bytes = models.BigIntegerField(default=0)
    first_byte_ms = models.FloatField("first byte ms", null=True)
    total_ms = models.FloatField("total ms")
    queue_ms = models.FloatField("queued ms", default=0)
    input_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    total_tokens = models.BigIntegerField(null=True)
    tokens_per_second = models.FloatField(null=True)
    sticky = models.CharField(max_length=16, blank=True)
    # JSON, as `proxy.record` builds it.
    attempt_notes = models.TextField(blank=True)
    trace = models.TextField(blank=True)
    metrics = models.TextField(blank=True)

    class Meta:
        verbose_name = "request"
        verbose_name_plural = "request log"
        ordering: ClassVar = ["-id"]
        # Each filter offered walks one of these from its newest end; what stands behind the key is there for the
        # other filters: rows that one index finds and another filter refuses are never read.
        indexes: ClassVar = [
            models.Index(fields=["model", "id", "endpoint_id", "outcome"], name="request_log_model"),
            models.Index(fields=["endpoint_id", "id", "outcome"], name="request_log_endpoint"),
            models.Index(fields=["outcome", "id"], name="request_log_outcome"),
            models.Index(fields=["client", "id", "endpoint_id", "outcome"], name="request_log_client"),
            models.Index(fields=["request_id"], name="request_log_request_id"),
        ]

    def __str__(self) -> str:
        return self.request_id

    @property
    def ended(self) -> datetime:
        """When the request ended."""
        return time_of_key(self.pk)


class RequestHour(models.Model):
    """What became of the requests that ended within one hour, for one route, model and endpoint."""

    hour = models.DateTimeField()
    provider = models.CharField("route", max_length=100)
    model = models.CharField(max_length=200, blank=True)
    endpoint_id = models.BigIntegerField(null=True)
    endpoint = models.CharField(max_length=100, blank=True)
    requests = models.BigIntegerField()
    successes = models.BigIntegerField()
    backend_errors = models.BigIntegerField()
    rejected = models.BigIntegerField()
    broken = models.BigIntegerField()
    clients_gone = models.BigIntegerField()
    streams = models.BigIntegerField()
    attempts = models.BigIntegerField()
    request_bytes = models.BigIntegerField()
    response_bytes = models.BigIntegerField()
    total_ms = models.FloatField(help_text="Sum over successes.")
    first_byte_ms = models.FloatField(help_text="Sum over successes.")
    queue_ms = models.FloatField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()

    class Meta:
        verbose_name = "hour of requests"
        verbose_name_plural = "hours of requests"
        ordering: ClassVar = ["-hour", "provider", "model", "endpoint"]
        indexes: ClassVar = [models.Index(fields=["hour"], name="request_hour_hour")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:00} {self.provider} {self.model}".rstrip()


class RollUpState(models.Model):
    """How far the roll-ups have come; one row. Keys of RequestLog, at whole hours."""

    rolled_until = models.BigIntegerField(default=0)  # hours before are in RequestHour
    pruned_until = models.BigIntegerField(default=0)  # rows before may be gone: never counted again

    def __str__(self) -> str:
        return f"rolled up until {time_of_key(self.rolled_until):%Y-%m-%d %H:00}"
