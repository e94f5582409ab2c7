"""The proxy application."""

from django.apps import AppConfig


class ProxyConfig(AppConfig):
    """Machine traffic: routing and relaying."""

    name = "proxy"
    verbose_name = "Proxy"
