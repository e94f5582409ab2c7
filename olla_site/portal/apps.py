"""The portal as a Django application: its templates and static files, and the look of the admin."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """Pages for the team."""

    name = "olla_site.portal"
    label = "portal"
    verbose_name = "Portal"

    def ready(self) -> None:
        """Give the admin the product's name."""
        from django.contrib import admin

        admin.site.site_header = admin.site.site_title = "Olla for Django"
        admin.site.index_title = "Administration"
        admin.site.site_url = None  # the header has its own link to the portal
