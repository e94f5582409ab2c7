"""Addresses of the portal. Include it before the admin, whose login page is ours."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from olla_site.portal import connect, fleet, sign_in

app_name = "portal"

urlpatterns = [
    path("", fleet.home, name="home"),
    path("connect/", connect.connect, name="connect"),
    path("accounts/login/", sign_in.login, name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("admin/login/", sign_in.login, name="admin_login"),
]
