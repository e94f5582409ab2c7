"""One row of a table as routing reads it: endpoint, model, rule, alias. Blocking where a row has relations."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from endpoints.addressing import CREDENTIAL_HEADERS, parse_base_path, parse_origin
from endpoints.conf import conf
from endpoints.credentials import read_access
from endpoints.health import OperatorState, Status, Window
from endpoints.loaded import is_cold
from endpoints.models import (
    AnthropicMode,
    DiscoveredModel,
    Endpoint,
    EndpointHealth,
    ForwardClientAuth,
    ModelAlias,
    RoutingRule,
    RuleCondition,
)
from endpoints.outgoing import Limits
from endpoints.profile import NativeAnthropic, Profile
from endpoints.profiles import AUTO, profile_for
from endpoints.rules import (
    Condition,
    ConditionField,
    Fallback,
    Operator,
    Policy,
    Rule,
    RuleAction,
    Strategy,
    parse_tags,
)
from endpoints.snapshot import DEFAULT_RETRY_STATUSES, Alias, EndpointRecord, ListedModel, fold_names

logger = logging.getLogger(__name__)

_FORWARD = {ForwardClientAuth.YES.value: True, ForwardClientAuth.NO.value: False}


def load_aliases() -> tuple[Alias, ...]:
    """Every alias, by name."""
    return tuple(Alias(row.name, row.target_names(), row.one_model) for row in ModelAlias.objects.all())


def load_rules() -> list[Rule]:
    """The enabled routing rules in their order; one that makes no sense is logged and left out."""
    rows = RoutingRule.objects.filter(enabled=True).prefetch_related("conditions", "endpoints")
    rules = []
    for row in rows.order_by("order", "name"):
        try:
            rules.append(build_rule(row))
        except ValueError as error:  # stored past the form
            logger.warning("routing rule %s cannot be used: %s", row.name, error)
    return rules


def build_rule(row: RoutingRule) -> Rule:
    """One rule as routing reads it. Raises ValueError for words that are none of ours."""
    return make_rule(row, row.conditions.all(), (each.pk for each in row.endpoints.all()))


def make_rule(row: RoutingRule, conditions: Iterable[RuleCondition], endpoint_ids: Iterable[int]) -> Rule:
    """The same of a row that need not be stored, nor its conditions and endpoints. Raises ValueError."""
    return Rule(
        name=row.name,
        action=RuleAction(row.action),
        conditions=tuple(
            Condition(ConditionField(each.field), Operator(each.operator), each.value, each.header)
            for each in conditions
        ),
        tags=parse_tags(row.tags),
        endpoint_ids=frozenset(endpoint_ids),
        model=row.model,
        policy=Policy(row.policy) if row.policy else "",
        strategy=Strategy(row.strategy) if row.strategy else "",
        fallback=Fallback(row.fallback) if row.fallback else "",
        percentage=row.percentage or 0,
        message=row.message,
    )


def build_record(endpoint: Endpoint, models: tuple[ListedModel, ...], env: Mapping[str, str]) -> EndpointRecord:
    """One endpoint with its health and credentials resolved.

    Raises ValueError when its URL cannot be used at all; unusable credentials become `config_problem`.
    """
    health = getattr(endpoint, "health", None) or EndpointHealth()
    kind = endpoint.backend_type
    if kind == AUTO and health.detected_type:
        kind = health.detected_type
    profile = profile_for(kind)
    access = read_access(endpoint, env)
    return EndpointRecord(
        id=endpoint.pk,
        name=endpoint.name,
        backend_type=kind,
        profile=profile,
        url=endpoint.url,
        origin=parse_origin(endpoint.url),
        base_path=parse_base_path(endpoint.url),
        preserve_path=endpoint.preserve_path,
        priority=endpoint.priority,
        weight=endpoint.weight,
        tags=parse_tags(endpoint.tags),
        state=OperatorState(endpoint.state),
        check_interval=endpoint.check_interval,
        headers=access.headers,
        uses_own_key=endpoint.auth_type != "none"
        or any(name.lower() in CREDENTIAL_HEADERS for name, _ in access.headers),
        forward_client_auth=_FORWARD.get(endpoint.forward_client_auth),
        native_anthropic=native_anthropic(endpoint, profile),
        retry_statuses=parse_statuses(endpoint.retry_statuses),
        limits=endpoint_limits(endpoint, kind),
        tls=access.tls,
        max_concurrent=endpoint.max_concurrent,
        requests_per_minute=endpoint_rate(endpoint.requests_per_minute, kind),
        models=models,
        model_names=fold_names(models),
        cold=frozenset(each.name for each in models if is_cold(each)) if profile.loaded_at else frozenset(),
        config_problem=access.problem,
        maintenance=maintenance_window(endpoint),
        drain_then_disable=endpoint.drain_then_disable,
        **{**read_health(health), **({"status": Status.CONFIG_ERROR} if access.problem else {})},
    )


def native_anthropic(endpoint: Endpoint, profile: Profile) -> NativeAnthropic | None:
    """The endpoint's own Messages API, by its type or the operator's word; None when requests are translated."""
    own = profile.native_anthropic
    if endpoint.anthropic_mode == AnthropicMode.TRANSLATE:
        return None
    if endpoint.anthropic_mode == AnthropicMode.PASSTHROUGH:
        # The operator knows better than the table of kinds what this server lacks.
        return NativeAnthropic(endpoint.anthropic_path or (own or NativeAnthropic()).path)
    return replace(own, path=endpoint.anthropic_path or own.path) if own else None


def read_health(row: EndpointHealth) -> dict[str, Any]:
    """The fields of a record that the prober writes, the detected type left aside."""
    return {
        "status": Status(row.status),
        "status_since": row.status_since.timestamp(),
        "next_check": row.next_check.timestamp(),
        "last_checked": row.last_checked.timestamp() if row.last_checked else None,
        "last_error": row.last_error,
        "latency_ms": row.latency_ms,
        "server_version": row.server_version,
    }


def endpoint_limits(endpoint: Endpoint, kind: str) -> Limits:
    """An endpoint's timeouts: its own, else those of the settings, else those of its kind."""
    settings = conf()
    inherited = settings.first_byte_timeout or profile_for(kind).first_byte_timeout
    return Limits(
        connect=endpoint.connect_timeout or settings.connect_timeout,
        first_byte=endpoint.first_byte_timeout or inherited,
        idle=endpoint.idle_timeout or settings.idle_timeout,
        total=endpoint.total_timeout or settings.total_timeout,
    )


def endpoint_rate(own: int | None, backend_type: str) -> int:
    """Requests a minute an endpoint may get: its own setting, else a default for OpenAI's API alone; 0 is none."""
    if own is not None:
        return own
    return conf().openai_requests_per_minute if backend_type == "openai" else 0


def maintenance_window(endpoint: Endpoint) -> Window | None:
    """An endpoint's window, open where a side is empty; None when there is none."""
    begin, end = endpoint.maintenance_from, endpoint.maintenance_until
    if begin is None and end is None:
        return None
    return begin.timestamp() if begin else -math.inf, end.timestamp() if end else math.inf


@lru_cache(maxsize=256)
def parse_statuses(text: str) -> frozenset[int]:
    """Retry statuses as typed ("502, 503"); the product's own set when empty."""
    numbers = frozenset(int(part) for part in text.replace(",", " ").split() if part.isdecimal())
    return numbers or DEFAULT_RETRY_STATUSES


def read_listed(row: DiscoveredModel) -> ListedModel:
    """A discovered model without its endpoint."""
    return ListedModel(
        name=row.name,
        digest=row.digest,
        size_bytes=row.size_bytes,
        family=row.family,
        parameter_size=row.parameter_size,
        quantization=row.quantization,
        context_length=row.context_length,
        model_type=row.model_type,
        capabilities=tuple(row.capabilities),
        state=row.state,
        owner=row.owner,
        modified_at=row.modified_at.timestamp() if row.modified_at else None,
        file_format=row.file_format,
        parent=row.parent,
        checkpoint=row.checkpoint,
        recipe=row.recipe,
        memory_bytes=row.memory_bytes,
        memory_until=row.memory_until.timestamp() if row.memory_until else None,
        memory_context=row.memory_context,
    )
