"""The tables: what operators edit, and (apart from it) what the prober writes.

Human-edited and machine-written columns never share a table. Every change that matters to routing bumps
the one Revision row in the same transaction, which is how web processes notice it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone

from endpoints.alert_tables import AlertHook, AlertState
from endpoints.fields import EncryptedTextField
from endpoints.health import OperatorState, Status
from endpoints.profiles import AUTO, PROFILES
from endpoints.revision import Revision, RoutedQuerySet
from endpoints.rules import RULE_STRATEGIES, ConditionField, Fallback, Operator, Policy, RuleAction

__all__ = [
    "AlertHook", "AlertState", "AnthropicMode", "AuthType", "DiscoveredModel", "Endpoint", "EndpointHealth",
    "ForwardClientAuth", "ModelAlias", "ProberLease", "Revision", "RoutingRule", "RuleCondition",
]  # fmt: skip


RoutedManager = models.Manager.from_queryset(RoutedQuerySet)


class RoutedModel(models.Model):
    """A table whose every change is seen by routing within about a second."""

    routing_sees_changes = True

    objects = RoutedManager()

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


class AnthropicMode(models.TextChoices):
    """How Messages requests of Anthropic's clients reach the endpoint."""

    AUTO = "auto", "As its type says"
    PASSTHROUGH = "passthrough", "Passed through, as it speaks that API"
    TRANSLATE = "translate", "Translated to OpenAI's API"


def backend_types() -> list[tuple[str, str]]:
    """Every kind by name and title; a function, so that a new kind is no change of the table."""
    return [(AUTO, "Detect automatically"), *((p.name, p.title) for p in PROFILES.values())]


STATES = [(state.value, state.value.capitalize()) for state in OperatorState]
STATUSES = [(status.value, status.value.replace("_", " ")) for status in Status]
_positive = [MinValueValidator(0.001)]
ANTHROPIC_PATH = r"^(/(?!\.{1,2}/)[A-Za-z0-9._~-]+)*/messages\Z"


class Endpoint(RoutedModel):
    """A backend an operator registered."""

    name = models.CharField(max_length=100, unique=True, help_text="Shown in X-Olla-Endpoint, logs and pages.")
    url = models.CharField(
        "URL", max_length=500, help_text="For example http://gpu-1:11434. No user name or password in it."
    )
    backend_type = models.CharField("type", max_length=40, choices=backend_types, default=AUTO)
    state = models.CharField(
        max_length=20, choices=STATES, default=OperatorState.ACTIVE.value,
        help_text="Draining, maintenance: no new requests, open ones finish, still probed. Disabled: not probed.",
    )  # fmt: skip
    # Stays on once it has been carried out, which is how that is told from disabling by hand.
    drain_then_disable = models.BooleanField(
        "disable when drained",
        default=False,
        help_text="While draining: disable it once its last request has ended.",
    )
    maintenance_from = models.DateTimeField(
        null=True, blank=True, help_text="An active endpoint gets no new requests from then on; empty is from now."
    )
    maintenance_until = models.DateTimeField(
        null=True, blank=True, help_text="From then on it gets requests again; empty is until you change it."
    )
    priority = models.PositiveIntegerField(default=100, help_text="Higher is preferred by the priority policy.")
    weight = models.FloatField(default=1.0, validators=[MinValueValidator(0.01)])
    tags = models.CharField(
        max_length=300, blank=True,
        help_text="Names that routing rules can use, separated by commas, for example gpu, on-site.",
    )  # fmt: skip
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

    anthropic_mode = models.CharField(
        "Anthropic's Messages API",
        max_length=20,
        choices=AnthropicMode.choices,
        default=AnthropicMode.AUTO,
        help_text="Passed through, a request keeps every byte, whatever the type is known to lack. An endpoint "
        "that answers 404, 405 or 501 gets it translated after all.",
    )
    anthropic_path = models.CharField(
        "path of that API",
        max_length=200,
        blank=True,
        validators=[RegexValidator(ANTHROPIC_PATH, "A path that ends in /messages.")],
        help_text="Empty is the type's own, mostly /v1/messages.",
    )
    connect_timeout = models.FloatField(null=True, blank=True, validators=_positive)
    first_byte_timeout = models.FloatField(null=True, blank=True, validators=_positive)
    idle_timeout = models.FloatField(null=True, blank=True, validators=_positive)
    total_timeout = models.FloatField(null=True, blank=True, validators=_positive)
    retry_statuses = models.CharField(
        max_length=100, blank=True,
        help_text="Answers after which another endpoint is tried, such as 502, 503, 429 (also when empty).",
    )  # fmt: skip
    max_concurrent = models.PositiveIntegerField(
        "requests at once", null=True, blank=True, help_text="Empty or 0 is no limit; more wait in line."
    )
    requests_per_minute = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty is no limit, but 200 for type OpenAI; 0 is none for that too."
    )
    verify_tls = models.BooleanField("verify TLS certificate", default=True)
    ca_file = models.CharField(
        "CA file", max_length=500, blank=True,
        help_text="Name of a PEM file in the folder OLLA_CA_DIR; empty trusts the system's authorities.",
    )  # fmt: skip

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
    # What of the list was left out, and why.
    models_note = models.CharField(max_length=500, blank=True)
    server_version = models.CharField(max_length=40, blank=True)
    # When a web process last had a request open to it while it was to be disabled once drained.
    last_in_flight = models.DateTimeField(null=True, blank=True)

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
    memory_bytes = models.PositiveBigIntegerField("bytes in memory", null=True, blank=True)
    memory_until = models.DateTimeField("in memory until", null=True, blank=True)
    memory_context = models.PositiveBigIntegerField("context in memory", null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint("endpoint", "name", name="one_row_per_model_of_endpoint")
        ]

    def __str__(self) -> str:
        return self.name


class ModelAlias(RoutedModel):
    """A name clients may use for an ordered list of real models."""

    name = models.CharField(
        max_length=500,
        help_text="What clients write as the model, for example fast-chat. Letter case does not count.",
    )
    targets = models.TextField(
        help_text="Real model names, one a line, best first. An endpoint is sent the first of them that it has."
    )
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
            models.UniqueConstraint(
                Lower("name"), name="alias_name_unique_without_case",
                violation_error_message="There is an alias of this name already (letter case does not count).",
            )
        ]  # fmt: skip

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
POLICIES = [(policy.value, policy.value) for policy in Policy]
STRATEGIES = [(strategy.value, strategy.value) for strategy in RULE_STRATEGIES]
FALLBACKS = [(fallback.value, fallback.value) for fallback in Fallback]


class RoutingRule(RoutedModel):
    """One rule: when all its conditions match, its action applies; the first matching rule wins."""

    name = models.CharField(max_length=100, unique=True, help_text="Shown in errors and traces.")
    order = models.PositiveIntegerField(
        default=100,
        help_text="Rules are tried from the lowest number up; the first that matches is the only one used.",
    )
    enabled = models.BooleanField(default=True)
    action = models.CharField(max_length=20, choices=RULE_ACTIONS)
    tags = models.CharField(
        max_length=300, blank=True,
        help_text="Separated by commas, for example gpu, on-site: endpoints that have any of them.",
    )  # fmt: skip
    endpoints = models.ManyToManyField(
        Endpoint, blank=True, help_text="Besides those with one of the tags, these endpoints."
    )
    model = models.CharField(
        "model to send", max_length=500, blank=True,
        help_text="A real model or an alias, for example llama3:8b. Endpoints are chosen by it.",
    )  # fmt: skip
    policy = models.CharField(
        max_length=40, blank=True, choices=POLICIES, help_text="How one of several endpoints is chosen."
    )
    strategy = models.CharField(
        max_length=40, blank=True, choices=STRATEGIES,
        help_text="What to do when no endpoint that has the model can answer.",
    )  # fmt: skip
    fallback = models.CharField(
        max_length=40, blank=True, choices=FALLBACKS,
        help_text="Where the optimistic and discovery strategies may then send it; empty is as the settings say.",
    )  # fmt: skip
    percentage = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(99)],
        help_text="1 to 99: this share goes to the endpoints named above, the rest to all others.",
    )  # fmt: skip
    message = models.CharField(
        max_length=500, blank=True, help_text="What the client is told, with status 403. Empty names the rule."
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["order", "name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(percentage__isnull=True) | Q(percentage__gte=1, percentage__lte=99),
                name="rule_percentage_1_to_99",
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
    field = models.CharField(
        max_length=20, choices=CONDITION_FIELDS, help_text="What of the request is looked at."
    )
    header = models.CharField(
        "header name", max_length=100, blank=True, help_text="For Header only, for example X-Team."
    )
    operator = models.CharField(
        max_length=20, choices=OPERATORS, default=Operator.IS.value,
        help_text="is compares the whole text, matches takes * and ?. Letter case never counts.",
    )  # fmt: skip
    value = models.CharField(
        max_length=500,
        help_text="For example llama* (model), openai (prefix), /v1/embeddings (path), 10.1.0.0/16 (client "
        "network), vision (capability).",
    )

    class Meta:
        verbose_name = "condition"
        ordering: ClassVar[list[str]] = ["pk"]

    def __str__(self) -> str:
        return f"{self.field} {self.operator} {self.value}"


class ProberLease(models.Model):
    """Which prober is active: one row, renewed by its holder, taken over when it expires."""

    holder = models.CharField(max_length=200)
    renewed_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    durations = models.TextField(default="", blank=True)  # how long its probes took: `endpoints.durations`

    def __str__(self) -> str:
        return self.holder
