"""The request log in the admin: to look at, to filter, to search and to take away; never to edit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from endpoints.admin import ReadOnlyAdmin, render_time
from endpoints.models import Endpoint
from proxy.decision_words import describe_attempt, describe_trace
from proxy.log_export import CONTENT_TYPES, Format, export
from proxy.log_pages import fetch, known_models, parse_cursor, read_column
from proxy.models import RequestHour, RequestLog, key_at

if TYPE_CHECKING:
    # Generic for the type checker only: Django's own class takes no parameters at run time.
    _LogAdmin = admin.ModelAdmin[RequestLog]
    _HourAdmin = admin.ModelAdmin[RequestHour]
else:
    _LogAdmin = _HourAdmin = admin.ModelAdmin

_CURSOR = ("before", "after")
_MOST_ENDPOINTS = 200
_SPANS = {"900": "last 15 minutes", "3600": "last hour", "86400": "last day", "604800": "last 7 days"}


class KeysetChangeList(ChangeList):
    """A list that walks from key to key and never counts, so that it is as fast at a million rows as at ten."""

    older = newer = ""

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """The parameters that filter: the cursor is none of them."""
        found = super().get_filters_params(params)
        return {name: value for name, value in found.items() if name not in _CURSOR}

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        """The filtered rows; the search is `proxy.log_pages`'s, which needs the cursor for it."""
        search, self.query = self.query, ""
        try:
            return super().get_queryset(request, exclude_parameters)
        finally:
            self.query = search

    def get_results(self, request: HttpRequest) -> None:
        """One page, and whether there are others on either side."""
        size, cursor = self.list_per_page, parse_cursor(request.GET)
        page = fetch(self.queryset, cursor, size + 1, self.query)
        more = len(page) > size
        if cursor.after is not None:
            page = page[-size:]
            has_newer, has_older = more, True
        else:
            page = page[:size]
            has_newer, has_older = cursor.before is not None, more
        if page:
            self.newer = self._link(after=page[0].pk) if has_newer else ""
            self.older = self._link(before=page[-1].pk) if has_older else ""
        self.result_list: Any = page
        self.result_count = len(page)
        self.full_result_count = None
        self.show_admin_actions = self.can_show_all = self.multi_page = False

    def _link(self, **cursor: int) -> str:
        return self.get_query_string(dict(cursor), [*_CURSOR])


class ModelFilter(admin.SimpleListFilter):
    """By the model asked for."""

    title = "model"
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = known_models()
        chosen = request.GET.get("model")
        if chosen and chosen not in names:
            names.append(chosen)
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(model=self.value()) if self.value() else queryset


class EndpointFilter(admin.SimpleListFilter):
    """By the endpoint that answered, or was tried last."""

    title = "endpoint"
    parameter_name = "endpoint"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = Endpoint.objects.order_by("name").values_list("pk", "name")[:_MOST_ENDPOINTS]
        named = [(str(key), name) for key, name in found]
        chosen = request.GET.get("endpoint", "")
        if chosen.isdecimal() and chosen not in dict(named):
            named.append((chosen, f"no. {chosen}"))  # gone, or one of too many to name
        return named

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(endpoint_id=int(value)) if value and value.isdecimal() else queryset


class TimeFilter(admin.SimpleListFilter):
    """By when the request ended, which is what rows are kept in order of."""

    title = "time"
    parameter_name = "within"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(_SPANS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(id__gte=key_at(time.time() - int(value))) if value in _SPANS else queryset


@admin.register(RequestLog)
class RequestLogAdmin(ReadOnlyAdmin, _LogAdmin):
    """One row for each request."""

    list_display = (
        "request_id", "when", "outcome", "status", "model", "endpoint", "client", "duration", "first_byte_ms",
        "total_tokens", "attempts", "error_code",
    )  # fmt: skip
    list_filter = ("outcome", TimeFilter, EndpointFilter, ModelFilter)
    search_fields = ("request_id", "client", "model")
    search_help_text = "A whole request id, a whole client address, or the beginning of a model's name."
    list_per_page = 100
    sortable_by = ()
    actions = None
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    fieldsets = (
        (None, {"fields": ("request_id", "when", "ended_at", "outcome", "status", "error_code")}),
        ("Request", {"fields": ("client", "peer", "client_key", "method", "path", "provider", "model", "stream")}),
        ("Answer", {"fields": ("endpoint", "backend_type", "sent_model", "mode", "sticky")}),
        ("Figures", {"fields": (
            "duration", "first_byte_ms", "queue_ms", "request_bytes", "response_bytes", "input_tokens",
            "output_tokens", "total_tokens", "tokens_per_second", "more_figures",
        )}),
        ("Why", {"fields": ("decision", "tries")}),
    )  # fmt: skip

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def get_urls(self) -> list[URLPattern]:
        own = path("export/<str:form>", self.admin_site.admin_view(self.export), name="proxy_requestlog_export")
        return [own, *super().get_urls()]

    def export(self, request: HttpRequest, form: str) -> HttpResponseBase:
        """The rows that the list's filters and search choose, as a download."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if form not in tuple(Format):
            raise Http404
        wanted = Format(form)
        chosen: Any = self.get_changelist_instance(request)
        answer = StreamingHttpResponse(
            export(chosen.queryset, chosen.query, wanted), content_type=CONTENT_TYPES[wanted]
        )
        answer["Content-Disposition"] = f'attachment; filename="request-log.{wanted}"'
        answer["X-Accel-Buffering"] = "no"
        return answer

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """The list, with where to export it."""
        query = request.GET.copy()
        for name in _CURSOR:
            query.pop(name, None)
        links = [
            (form.upper(), f"{reverse('admin:proxy_requestlog_export', args=[form])}?{query.urlencode()}")
            for form in Format
        ]
        return super().changelist_view(request, {**(extra_context or {}), "exports": links})

    @admin.display(description="came")
    def when(self, row: RequestLog) -> str:
        return render_time(row.time)

    @admin.display(description="ended")
    def ended_at(self, row: RequestLog) -> str:
        return render_time(row.ended)

    @admin.display(description="total ms")
    def duration(self, row: RequestLog) -> str:
        return f"{row.total_ms:.0f}"

    @admin.display(description="attempts")
    def tries(self, row: RequestLog) -> SafeString | str:
        notes = read_column(row.attempt_notes)
        if not notes:
            return "No endpoint was asked."
        lines = format_html_join("", "<li>{}</li>", ((describe_attempt(note),) for note in notes))
        return format_html("<ol>{}</ol>", lines)

    @admin.display(description="decision")
    def decision(self, row: RequestLog) -> SafeString | str:
        trace = read_column(row.trace)
        if not trace:
            return "Refused before it was routed."
        return format_html_join("", "<p>{}</p>", ((line,) for line in describe_trace(trace)))

    @admin.display(description="backend's figures")
    def more_figures(self, row: RequestLog) -> SafeString | str:
        figures = read_column(row.metrics) or {}
        return format_html_join("", "{}: {}<br>", figures.items()) or "-"


@admin.register(RequestHour)
class RequestHourAdmin(ReadOnlyAdmin, _HourAdmin):
    """The sums of each hour."""

    list_display = (
        "hour", "provider", "model", "endpoint", "requests", "successes", "backend_errors", "rejected", "broken",
        "clients_gone", "input_tokens", "output_tokens",
    )  # fmt: skip
    list_filter = ("hour",)
    list_per_page = 100
    actions = None
    show_full_result_count = False
