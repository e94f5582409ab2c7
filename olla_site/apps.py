"""The installation as a Django application: its commands, templates and static files."""

from django.apps import AppConfig


class OllaSiteConfig(AppConfig):
    """First in INSTALLED_APPS, so that its runserver and templates win."""

    name = "olla_site"
    verbose_name = "Olla for Django"
