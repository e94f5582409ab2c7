"""Where each address goes. Machine traffic never reaches Django's own handler (`olla_site.asgi`)."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("proxy.urls")),
]
