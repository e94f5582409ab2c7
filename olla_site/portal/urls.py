"""Addresses of the portal. Include it before the admin, whose login page is ours."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from olla_site.portal import (
    add_endpoint,
    connect,
    endpoint_actions,
    endpoint_page,
    explain_page,
    fleet,
    fleet_actions,
    models_page,
    playground,
    requests_page,
    rule_preview,
    rules_page,
    sign_in,
)

app_name = "portal"

urlpatterns = [
    path("", fleet.home, name="home"),
    path("fleet/rows/", fleet.rows, name="fleet_rows"),
    path("fleet/add/", add_endpoint.add_endpoint, name="add_endpoint"),
    path("fleet/try/", add_endpoint.try_endpoint, name="try_endpoint"),
    path("fleet/bulk/<slug:name>/", fleet_actions.act, name="fleet_action"),
    path("fleet/work/<str:key>/", fleet_actions.show, name="fleet_work"),
    path("fleet/work/<str:key>/stop/", fleet_actions.stop, name="fleet_work_stop"),
    path("fleet/<int:pk>/", endpoint_page.endpoint, name="endpoint"),
    path("fleet/<int:pk>/history/", endpoint_page.history, name="endpoint_history"),
    path("fleet/<int:pk>/<slug:name>/", endpoint_actions.act, name="endpoint_action"),
    path("portal/live.json", fleet.live, name="live"),
    path("models/", models_page.models, name="models"),
    path("models/<path:name>", models_page.model, name="model"),
    path("requests/", requests_page.requests, name="requests"),
    path("requests/rows/", requests_page.rows, name="request_rows"),
    path("requests/<int:key>/", requests_page.one_request, name="request"),
    path("requests/id/<str:request_id>/", requests_page.find_request, name="find_request"),
    path("explain/", explain_page.explain, name="explain"),
    path("rules/", rules_page.rules, name="rules"),
    path("rules/preview/", rule_preview.preview, name="rule_previews"),
    path("rules/preview/form/", rule_preview.preview_form, name="rule_preview_form"),
    path("rules/preview/form/<int:pk>/", rule_preview.preview_form, name="rule_preview_form"),
    path("rules/preview/alias/", rule_preview.preview_alias_form, name="alias_preview_form"),
    path("rules/preview/alias/<int:pk>/", rule_preview.preview_alias_form, name="alias_preview_form"),
    path("rules/preview/alias/<int:pk>/delete/", rule_preview.preview_alias_deletion, name="alias_preview"),
    path("rules/preview/<str:key>/", rule_preview.show, name="rule_preview"),
    path("rules/preview/<str:key>/again/", rule_preview.again, name="rule_preview_again"),
    path("rules/preview/<str:key>/cancel/", rule_preview.cancel, name="rule_preview_cancel"),
    path("rules/<int:pk>/<slug:name>/", rules_page.change, name="rule_change"),
    path("playground/", playground.playground, name="playground"),
    path("connect/", connect.connect, name="connect"),
    path("accounts/login/", sign_in.login, name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("admin/login/", sign_in.login, name="admin_login"),
]
