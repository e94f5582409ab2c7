"""The endpoints application."""

from django.apps import AppConfig


class EndpointsConfig(AppConfig):
    """Tables, admin and probing of backends."""

    name = "endpoints"
    verbose_name = "Endpoints"

    def ready(self) -> None:
        """Register the system checks."""
        from django.core.checks import register

        from endpoints import checks

        for check in checks.ALL:
            register(check)
