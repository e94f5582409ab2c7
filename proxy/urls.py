"""The addresses of the API door. Prefixes come from the profiles; `proxy.views.proxy` looks them up."""

from django.urls import path, re_path

from proxy import anthropic_views, explain_views, status_views, views

urlpatterns = [
    path("olla/models", views.models),
    path("olla/models/", views.models),
    path("olla/models/<path:name>", views.model),
    # Django's stubs know only its own responses; the API door answers with RelayResponse as well.
    # Spelled out: Django cannot reverse any address of the site beside a pattern with (?i:...).
    re_path(r"^olla/[Aa][Nn][Tt][Hh][Rr][Oo][Pp][Ii][Cc](?P<rest>(?:/.*)?)\Z", anthropic_views.anthropic),  # type: ignore[arg-type]
    re_path(r"^olla/(?P<prefix>[^/]+)(?P<rest>(?:/.*)?)\Z", views.proxy),  # type: ignore[arg-type]
    path("internal/health", status_views.health),
    path("internal/ready", status_views.ready),
    path("internal/status", status_views.status),
    path("internal/status/endpoints", status_views.endpoints),
    path("internal/status/models", status_views.models),
    path("internal/stats/models", status_views.model_stats),
    path("internal/stats/sticky", status_views.sticky_stats),
    path("internal/stats/translators", status_views.translator_stats),
    path("internal/metrics", status_views.metrics),
    path("internal/process", status_views.process),
    path("internal/explain", explain_views.explain_view),
    path("version", status_views.version),
    re_path(r"^(?:olla|internal)(?:/.*)?\Z", views.not_found),
]
