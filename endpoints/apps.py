"""The endpoints application."""

from django.apps import AppConfig


class EndpointsConfig(AppConfig):
    """Tables, admin and probing of backends."""

    name = "endpoints"
    verbose_name = "Endpoints"
