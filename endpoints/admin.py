"""The operator's desk: endpoints with their live status, and the models they listed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from endpoints import alert_admin  # noqa: F401 - registers its table
from endpoints.admin_actions import EndpointActions
from endpoints.detect_desk import DetectDesk
from endpoints.drift_desk import DriftDesk
from endpoints.facts import describe_kind, gather_facts, health_of
from endpoints.forms import EndpointForm
from endpoints.in_flight import in_flight_of
from endpoints.lookup import resolve_hosts
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, ProberLease
from endpoints.operations import Ask, ask_prober, prober_state
from endpoints.routing_admin import tell_warnings
from endpoints.status_text import HealthFacts, describe_state, describe_status
from endpoints.validation import URL_FIELDS, hosts_of

if TYPE_CHECKING:
    # Generic for the type checker only: Django's own class takes no parameters at run time.
    _EndpointAdmin = admin.ModelAdmin[Endpoint]
    _ReadOnly = admin.ModelAdmin[DiscoveredModel]
else:
    _EndpointAdmin = _ReadOnly = admin.ModelAdmin

SHOWN_MODELS = 60


def render_time(moment: datetime | None, absent: str = "never") -> str:
    """A time that the page's script shows in local time, with the exact value on hover."""
    if moment is None:
        return absent
    shown = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return format_html('<time datetime="{}">{}</time>', moment.isoformat(), shown)


class ReadOnlyAdmin(_ReadOnly):
    """Machine tables: to look at, never to edit."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Endpoint)
class EndpointAdmin(DetectDesk, EndpointActions, _EndpointAdmin):
    """Endpoints: what operators edit, beside what the prober found."""

    form = EndpointForm
    list_display = ("name", "live_status", "kind", "model_count", "in_flight", "priority", "probes")
    list_filter = ("state", "health__status", "backend_type", "auth_type")
    list_select_related = ("health",)
    list_per_page = 50
    search_fields = ("name", "url", "tags", "notes", "health__last_error")
    search_help_text = "Search name, URL, tags, notes and last error."
    ordering = ("-priority", "name")
    save_on_top = False
    actions = ("probe_now", "discover_now", "drain", "drain_then_disable", "maintain", "resume", "disable")
    readonly_fields = ("live",)
    fieldsets = (
        (None, {"fields": ("name", "url", "backend_type", "state", "live")}),
        (
            "Drain and maintenance",
            {
                "classes": ("collapse",),
                "fields": ("drain_then_disable", "maintenance_from", "maintenance_until"),
                "description": "A window takes an active endpoint out and back by itself. Times are of the "
                "server's time zone (OLLA_TIME_ZONE).",
            },
        ),
        (
            "Choice",
            {
                "fields": ("priority", "weight", "tags"),
                "description": "Which endpoint gets a request when several could.",
            },
        ),
        (
            "Credentials",
            {
                "fields": (
                    "auth_type", "auth_username", "auth_secret", "auth_header", "extra_headers",
                    "forward_client_auth",
                ),
                "description": "How this server signs in at the endpoint. Pointing the endpoint somewhere else "
                "asks for them again.",
            },
        ),
        (
            "Probing and models",
            {
                "fields": (
                    "check_interval", "check_timeout", "health_check_url", "model_url", "model_include",
                    "model_exclude",
                ),
            },
        ),
        (
            "Limits and retries",
            {
                "classes": ("collapse",),
                "fields": ("max_concurrent", "requests_per_minute", "retry_statuses"),
                "description": "What is over a limit goes to another endpoint, or waits in line for this one.",
            },
        ),
        (
            "Anthropic's clients",
            {
                "classes": ("collapse",),
                "fields": ("anthropic_mode", "anthropic_path"),
                "description": "Whether this endpoint gets Messages requests as they are or as chat completions.",
            },
        ),
        (
            "Connection",
            {
                "classes": ("collapse",),
                "fields": (
                    "preserve_path", "verify_tls", "ca_file", "connect_timeout", "first_byte_timeout",
                    "idle_timeout", "total_timeout",
                ),
                "description": "Timeouts in seconds; an empty field shows what holds without one.",
            },
        ),
        ("Notes", {"classes": ("collapse",), "fields": ("notes",)}),
    )  # fmt: skip

    class Media:
        css = {"all": ("endpoints/admin.css",)}  # noqa: RUF012 - Django reads this as plain data
        js = ("endpoints/times.js", "endpoints/detect.js")

    # ------------------------------------------------------------------------------------------------ list

    def get_queryset(self, request: HttpRequest) -> QuerySet[Endpoint]:
        models = DiscoveredModel.objects.filter(endpoint=OuterRef("pk")).order_by().values("endpoint")
        return (
            super()
            .get_queryset(request)
            .annotate(
                models_listed=Coalesce(Subquery(models.annotate(number=Count("pk")).values("number")), 0),
                prober_seen=Subquery(ProberLease.objects.filter(pk=1).values("renewed_at")),
            )
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"prober": prober_state(), **(extra_context or {})}
        return super().changelist_view(request, context)

    @admin.display(description="status", ordering="health__status")
    def live_status(self, endpoint: Endpoint) -> SafeString:
        facts = gather_facts(endpoint, getattr(endpoint, "prober_seen", None))
        return render_badges(facts)

    @admin.display(description="type and URL", ordering="backend_type")
    def kind(self, endpoint: Endpoint) -> SafeString:
        return format_html(
            '{}<span class="olla-sub" title="{}">{}</span>',
            describe_kind(endpoint),
            endpoint.url,
            Truncator(endpoint.url).chars(48),
        )

    @admin.display(description="models", ordering="models_listed")
    def model_count(self, endpoint: Endpoint) -> str | int:
        count: int = getattr(endpoint, "models_listed", 0)
        if not count:
            return 0
        address = reverse("admin:endpoints_discoveredmodel_changelist")
        return format_html('<a href="{}?endpoint__id__exact={}">{}</a>', address, endpoint.pk, count)

    @admin.display(description="in flight")
    def in_flight(self, endpoint: Endpoint) -> int:
        """Requests open to it in this process."""
        return in_flight_of(endpoint.pk)

    @admin.display(description="probed", ordering="health__last_checked")
    def probes(self, endpoint: Endpoint) -> SafeString:
        health = health_of(endpoint)
        return format_html(
            '{}<span class="olla-sub">{}</span><span class="olla-sub">{}</span>',
            render_time(health.last_checked),
            _write_latency(health),
            render_time(health.next_check),
        )

    # ------------------------------------------------------------------------------------------------ form

    @admin.display(description="Live")
    def live(self, endpoint: Endpoint | None) -> SafeString | str:
        """What the prober knows, on the endpoint's own page."""
        if endpoint is None or endpoint.pk is None:
            return "Save the endpoint: it is probed and its models are read at once."
        health = health_of(endpoint)
        names = list(endpoint.discovered_models.values_list("name", flat=True)[: SHOWN_MODELS + 1])
        context = {
            "badges": render_badges(gather_facts(endpoint, getattr(endpoint, "prober_seen", None))),
            "health": health,
            "kind": describe_kind(endpoint),
            "latency": _write_latency(health),
            "in_flight": in_flight_of(endpoint.pk),
            "times": {
                "Since": render_time(health.status_since),
                "Last probe": render_time(health.last_checked),
                "Next probe": render_time(health.next_check),
                "Models read": render_time(health.models_checked),
            },
            "names": names[:SHOWN_MODELS],
            "more": len(names) > SHOWN_MODELS,
            "endpoint": endpoint,
        }
        return render_to_string("endpoints/live.html", context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        # The class is made for this one request, so this does not leak into another.
        form.addresses = getattr(request, "endpoint_addresses", None)
        return form

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Look names up first: Django opens a write transaction around the form, which must not wait for DNS."""
        if request.method == "POST":
            urls = [request.POST.get(name, "").strip() for name in URL_FIELDS]
            request.endpoint_addresses = resolve_hosts(hosts_of(urls))  # type: ignore[attr-defined]
        return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: Endpoint, form: ModelForm[Endpoint], change: bool) -> None:
        super().save_model(request, obj, form, change)
        ask_prober([obj.pk], (Ask.PROBE, Ask.DISCOVERY))
        tell_warnings(request, form)

    def get_deleted_objects(self, objs: Sequence[Any] | QuerySet[Any], request: HttpRequest) -> Any:
        """Machine rows go with their endpoint, although nobody may delete them by themselves."""
        tree, counts, needed, protected = super().get_deleted_objects(objs, request)
        machine = {str(table._meta.verbose_name) for table in (EndpointHealth, DiscoveredModel)}
        return tree, counts, {each for each in needed if str(each) not in machine}, protected


@admin.register(DiscoveredModel)
class DiscoveredModelAdmin(DriftDesk, ReadOnlyAdmin):
    """Every model every endpoint listed at its latest discovery."""

    list_display = ("name", "endpoint", "model_type", "parameter_size", "quantization", "context_length", "state")
    list_filter = (("endpoint", admin.RelatedOnlyFieldListFilter), "model_type", "quantization")
    list_select_related = ("endpoint",)
    search_fields = ("name", "family")
    list_per_page = 100


def render_badges(facts: HealthFacts) -> SafeString:
    """Status, operator state and reason of one endpoint. Without a template: a list has many."""
    badge = describe_status(facts, timezone.now().timestamp())
    state = describe_state(facts.state, facts.state_reason)
    tone = f"olla-{badge.tone}{' olla-stale' if badge.stale else ''}"
    parts = [_render_badge(badge.label, tone, badge.reason)]
    if badge.stale:
        parts.append(_render_badge("stale", "olla-warn", badge.reason))
    if state is not None:
        parts.append(_render_badge(state.label, "olla-quiet", state.reason))
    if badge.reason:
        parts.append(format_html('<span class="olla-reason">{}</span>', Truncator(badge.reason).chars(120)))
    return format_html_join(" ", "{}", ((part,) for part in parts))


def _write_latency(health: EndpointHealth) -> str:
    return "-" if health.latency_ms is None else f"{health.latency_ms:.0f} ms"


def _render_badge(label: str, classes: str, reason: str) -> SafeString:
    if not reason:
        return format_html('<span class="olla-badge {}">{}</span>', classes, label)
    return format_html('<span class="olla-badge {}" title="{}">{}</span>', classes, reason, label)
