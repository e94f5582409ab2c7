"""The installation as a Django application: its commands, templates and static files."""

from django.apps import AppConfig


class OllaSiteConfig(AppConfig):
    """First in INSTALLED_APPS, so that its runserver and templates win."""

    name = "olla_site"
    verbose_name = "Olla for Django"

    def ready(self) -> None:
        """Let the admin show what this process has in flight."""
        from endpoints.in_flight import provide_in_flight
        from proxy.live import live

        provide_in_flight(lambda: live.in_flight)
