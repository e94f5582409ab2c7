"""Addresses of the portal. Include it before the admin, whose login page is ours."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from olla_site.portal import views

app_name = "portal"

urlpatterns = [
    path("", views.home, name="home"),
    path("accounts/login/", views.login, name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("admin/login/", views.login, name="admin_login"),
]
