"""Where each address goes. Machine traffic never reaches Django's own handler (`olla_site.asgi`)."""

from django.contrib import admin
from django.urls import include, path

from olla_site import operator_views

urlpatterns = [
    path("", include("olla_site.portal.urls")),  # before the admin: its login page is the portal's
    path("operator/token", operator_views.issue, name="operator_token"),
    path("admin/", admin.site.urls),
    path("", include("proxy.urls")),
]
