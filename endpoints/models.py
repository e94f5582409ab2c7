"""The tables: what operators edit, and (apart from it) what the prober writes.

Human-edited and machine-written columns never share a table. Every change that matters to routing bumps
the one Revision row in the same transaction, which is how web processes notice it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.utils import timezone

from endpoints.fields import EncryptedTextField
from endpoints.health import OperatorState, Status
from endpoints.profiles import AUTO, PROFILES
from endpoints.rules import ConditionField, Operator, RuleAction


class Revision(models.Model):
    """One row whose number grows with every change that routing must see."""

    number = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "revision"

    def __str__(self) -> str:
        return f"revision {self.number}"

    @classmethod
    def bump(cls) -> None:
        """Count one change. Call inside the transaction that makes it."""
        if not cls.objects.filter(pk=1).update(number=F("number") + 1):
            cls.objects.get_or_create(pk=1, defaults={"number": 1})


class RoutedQuerySet(models.QuerySet[Any]):
    """A query set whose bulk changes bump the revision too (they send no signals)."""

    def update(self, **values: Any) -> int:
        with transaction.atomic():
            count = super().update(**values)
            Revision.bump()
        return count

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic():
            made = super().bulk_create(objs, *args, **kwargs)
            Revision.bump()
        return made

    def bulk_update(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> int:
        with transaction.atomic():
            count = super().bulk_update(objs, *args, **kwargs)
            Revision.bump()
        return count

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            result = super().delete()
            Revision.bump()
        return result


class RoutedModel(models.Model):
    """A table whose every change is seen by routing within about a second."""

    objects: ClassVar[models.Manager[Any]] = RoutedQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)
            Revision.bump()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            result = super().delete(*args, **kwargs)
            Revision.bump()
        return result


class AuthType(models.TextChoices):
    """How this product authenticates to an endpoint."""

    NONE = "none", "None"
    BEARER = "bearer", "Bearer token"
    API_KEY = "api_key", "API key header"
    BASIC = "basic", "User name and password"


class ForwardClientAuth(models.TextChoices):
    """Whether a client's own Authorization and x-api-key reach the endpoint."""

    DEFAULT = "default", "As its type says"
    YES = "yes", "Yes"
    NO = "no", "No"


BACKEND_TYPES = [(AUTO, "Detect automatically"), *((p.name, p.title) for p in PROFILES.values())]
STATES = [(state.value, state.value.capitalize()) for state in OperatorState]
STATUSES = [(status.value, status.value.replace("_", " ")) for status in Status]
_positive = [MinValueValidator(0.001)]


class Endpoint(RoutedModel):
    """A backend an operator registered."""

    name = models.CharField(max_length=100, unique=True, help_text="Shown in X-Olla-Endpoint, logs and pages.")
    url = models.CharField(
        "URL", max_length=500, help_text="For example http://gpu-1:11434. No user name or password in it."
    )
    backend_type = models.CharField("type", max_length=40, choices=BACKEND_TYPES, default=AUTO)
    state = models.CharField(max_length=20, choices=STATES, default=OperatorState.ACTIVE.value)
    priority = models.PositiveIntegerField(default=100, help_text="Higher is preferred by the priority policy.")
    weight = models.FloatField(default=1.0, validators=[MinValueValidator(0.01)])
    tags = models.CharField(max_length=300, blank=True, help_text="Separated by commas.")
    notes = models.TextField(blank=True)

    preserve_path = models.BooleanField(
        default=False, help_text="Put the URL's own path before every request path instead of replacing it."
    )
    health_check_url = models.CharField(
        "health check URL", max_length=500, blank=True,
        help_text="Path or absolute URL; empty uses the type's own.",
    )  # fmt: skip
    model_url = models.CharField(
        "model list URL", max_length=500, blank=True, help_text="Path or absolute URL; empty uses the type's own."
    )
    check_interval = models.FloatField(
        default=5.0, validators=[MinValueValidator(1.0)], help_text="Seconds between probes, at least 1."
    )
    check_timeout = models.FloatField(
        default=2.0, validators=_positive,
        help_text="Seconds a probe may take; below the interval, at most 30.",
    )  # fmt: skip
    model_include = models.TextField(
        "include models", blank=True,
        help_text="One pattern a line, such as llama*; empty takes every model.",
    )  # fmt: skip
    model_exclude = models.TextField("exclude models", blank=True, help_text="One pattern a line; wins.")

    auth_type = models.CharField("authentication", max_length=20, choices=AuthType.choices, default=AuthType.NONE)
    auth_header = models.CharField("API key header", max_length=100, blank=True, help_text="Empty is X-Api-Key.")
    auth_username = EncryptedTextField("user name", blank=True)
    auth_secret = EncryptedTextField("token, key or password", blank=True)
    # "Name: value" lines.
    extra_headers = EncryptedTextField("extra headers", blank=True)
    forward_client_auth = models.CharField(
        "forward client credentials", max_length=10, choices=ForwardClientAuth.choices,
        default=ForwardClientAuth.DEFAULT,
    )  # fmt: skip

    connect_timeout = models.FloatField(null=True, blank=True, validators=_positive)
    first_byte_timeout = models.FloatField(null=True, blank=True, validators=_positive)
    idle_timeout = models.FloatField(null=True, blank=True, validators=_positive)
    total_timeout = models.FloatField(null=True, blank=True, validators=_positive)
    retry_statuses = models.CharField(max_length=100, blank=True)
    max_concurrent = models.PositiveIntegerField(null=True, blank=True)
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    verify_tls = models.BooleanField("verify TLS certificate", default=True)
    ca_file = models.CharField("CA file", max_length=500, blank=True)

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-priority", "name"]

    def __str__(self) -> str:
        return self.name


class EndpointHealth(models.Model):
    """What the prober last found, one row an endpoint. `version` makes every write a compare-and-set."""

    endpoint = models.OneToOneField(Endpoint, on_delete=models.CASCADE, related_name="health", primary_key=True)
    version = models.BigIntegerField(default=0)
    status = models.CharField(max_length=20, choices=STATUSES, default=Status.UNKNOWN.value)
    status_since = models.DateTimeField(default=timezone.now)
    last_error = models.CharField(max_length=500, blank=True)
    latency_ms = models.FloatField(null=True, blank=True)
    last_checked = models.DateTimeField(null=True, blank=True)
    next_check = models.DateTimeField(default=timezone.now)
    consecutive_failures = models.PositiveIntegerField(default=0)
    detected_type = models.CharField(max_length=40, blank=True)
    models_checked = models.DateTimeField(null=True, blank=True)
    next_discovery = models.DateTimeField(default=timezone.now)
    models_error = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = "endpoint health"
        verbose_name_plural = "endpoint health"

    def __str__(self) -> str:
        return f"{self.endpoint}: {self.status}"


class DiscoveredModel(models.Model):
    """A model an endpoint listed at its latest successful discovery, under the name it has there."""

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="discovered_models")
    name = models.CharField(max_length=500)
    family = models.CharField(max_length=100, blank=True)
    parameter_size = models.CharField(max_length=40, blank=True)
    quantization = models.CharField(max_length=40, blank=True)
    context_length = models.PositiveBigIntegerField(null=True, blank=True)
    model_type = models.CharField("type", max_length=40, blank=True)
    capabilities = models.JSONField(default=list, blank=True)
    digest = models.CharField(max_length=200, blank=True)
    size_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    state = models.CharField(max_length=40, blank=True)
    owner = models.CharField(max_length=200, blank=True)
    modified_at = models.DateTimeField(null=True, blank=True)
    file_format = models.CharField("format", max_length=40, blank=True)
    parent = models.CharField(max_length=500, blank=True)
    checkpoint = models.CharField(max_length=500, blank=True)
    recipe = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint("endpoint", "name", name="one_row_per_model_of_endpoint")
        ]

    def __str__(self) -> str:
        return self.name


class ModelAlias(RoutedModel):
    """A name clients may use for an ordered list of real models."""

    name = models.CharField(max_length=500)
    targets = models.TextField(help_text="Real model names, one a line; the first an endpoint has is used.")
    one_model = models.BooleanField(
        "one model", default=False,
        help_text="These are names of one and the same model: a request for any of them may go to an endpoint "
        "that has it under another.",
    )  # fmt: skip
    notes = models.TextField(blank=True)

    class Meta:
        verbose_name_plural = "model aliases"
        ordering: ClassVar[list[str]] = ["name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(Lower("name"), name="alias_name_unique_without_case")
        ]

    def __str__(self) -> str:
        return self.name

    def target_names(self) -> tuple[str, ...]:
        """The targets in order, blank lines left out."""
        return tuple(line.strip() for line in self.targets.splitlines() if line.strip())


RULE_ACTIONS = [
    (RuleAction.RESTRICT.value, "Use only endpoints with these tags or names"),
    (RuleAction.PREFER.value, "Try endpoints with these tags or names first"),
    (RuleAction.REWRITE_MODEL.value, "Send another model name"),
    (RuleAction.POLICY.value, "Use this load-balancing policy"),
    (RuleAction.STRATEGY.value, "Use this strategy for missing models"),
    (RuleAction.SPLIT.value, "Send a percentage to these tags or names"),
    (RuleAction.REJECT.value, "Refuse with a message"),
]


class RoutingRule(RoutedModel):
    """One rule: when all its conditions match, its action applies; the first matching rule wins."""

    name = models.CharField(max_length=100, unique=True)
    order = models.PositiveIntegerField(default=100)
    enabled = models.BooleanField(default=True)
    action = models.CharField(max_length=20, choices=RULE_ACTIONS)
    tags = models.CharField(max_length=300, blank=True)
    endpoints = models.ManyToManyField(Endpoint, blank=True)
    model = models.CharField(max_length=500, blank=True)
    policy = models.CharField(max_length=40, blank=True)
    strategy = models.CharField(max_length=40, blank=True)
    fallback = models.CharField(max_length=40, blank=True)
    percentage = models.PositiveSmallIntegerField(null=True, blank=True)
    message = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["order", "name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(percentage__isnull=True) | Q(percentage__lte=100), name="rule_percentage_up_to_100"
            )
        ]

    def __str__(self) -> str:
        return self.name


# Client keys and groups become choices when there are keys.
CONDITION_FIELDS = [
    (ConditionField.MODEL.value, "Model"),
    (ConditionField.PREFIX.value, "Provider prefix"),
    (ConditionField.PATH.value, "Path"),
    (ConditionField.HEADER.value, "Header"),
    (ConditionField.CLIENT_NETWORK.value, "Client network"),
    (ConditionField.CAPABILITY.value, "Capability"),
]
OPERATORS = [
    (Operator.IS.value, "is"),
    (Operator.IS_NOT.value, "is not"),
    (Operator.GLOB.value, "matches"),
    (Operator.NOT_GLOB.value, "does not match"),
]


class RuleCondition(RoutedModel):
    """One condition of a rule: field, operator, value."""

    rule = models.ForeignKey(RoutingRule, on_delete=models.CASCADE, related_name="conditions")
    field = models.CharField(max_length=20, choices=CONDITION_FIELDS)
    header = models.CharField("header name", max_length=100, blank=True)
    operator = models.CharField(max_length=20, choices=OPERATORS)
    value = models.CharField(max_length=500)

    def __str__(self) -> str:
        return f"{self.field} {self.operator} {self.value}"


class ProberLease(models.Model):
    """Which prober is active: one row, renewed by its holder, taken over when it expires."""

    holder = models.CharField(max_length=200)
    renewed_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.holder
