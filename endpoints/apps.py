"""The endpoints application."""

from django.apps import AppConfig


class EndpointsConfig(AppConfig):
    """Tables, admin and probing of backends."""

    name = "endpoints"
    verbose_name = "Endpoints"

    def ready(self) -> None:
        """Register the system checks, and what the prober's process does beside probing."""
        from django.core.checks import register

        from endpoints import checks
        from endpoints.alerts.facts import FORGET_EVERY, forget_gone
        from endpoints.chores import register_chore

        for check in checks.ALL:
            register(check)
        register_chore("alert states", FORGET_EVERY, forget_gone)
