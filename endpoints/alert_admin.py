"""Alert hooks in the admin: a write-only URL and a button that sends a test."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from endpoints.addressing import AddressError, check_address, parse_origin
from endpoints.alert_tables import EVENTS, AlertHook
from endpoints.alerts.judging import AlertKind, Message
from endpoints.alerts.sending import Hook, SendError, post
from endpoints.alerts.watching import HookError, build_hook
from endpoints.lookup import resolve_hosts
from endpoints.transport import Transport

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[AlertHook]
    _ModelAdmin = admin.ModelAdmin[AlertHook]
else:
    _ModelForm, _ModelAdmin = forms.ModelForm, admin.ModelAdmin


_BUTTON = "_send_test"  # its name in the form's template


class AlertHookForm(_ModelForm):
    """The URL is never shown; left empty it stays what it is."""

    url = forms.CharField(
        label="URL",
        required=False,
        max_length=2000,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "class": "vTextField"}),
        help_text="Kept secret, for it may hold a token. Leave it empty to keep the one that is stored.",
    )
    events = forms.MultipleChoiceField(choices=EVENTS, widget=forms.CheckboxSelectMultiple)

    class Meta:
        model = AlertHook
        fields = ("name", "kind", "url", "events", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["events"] = self.instance.event_names()
        self.initial["url"] = ""

    def clean_url(self) -> Any:
        """A URL that can be posted to, or the one that is stored."""
        typed = self.cleaned_data["url"].strip()
        if not typed:
            if not self.instance.url:
                raise forms.ValidationError("Give the URL that messages are posted to.")
            return self.instance.url
        try:
            origin = parse_origin(typed)
        except AddressError:  # its text would show part of what was typed
            message = "Use an http or https URL without user name and password."
            raise forms.ValidationError(message) from None
        try:
            for address in resolve_hosts([origin.host])[origin.host]:
                check_address(address)
        except AddressError as problem:  # the door refuses it too: said here, before an alert is lost
            raise forms.ValidationError(str(problem)) from None
        return typed

    def clean_events(self) -> str:
        """As the column holds them."""
        return ",".join(self.cleaned_data["events"])


@admin.register(AlertHook)
class AlertHookAdmin(_ModelAdmin):
    """Who is told when something breaks."""

    form = AlertHookForm
    list_display = ("name", "kind", "told_of", "enabled")
    actions = ("send_test",)

    def response_add(
        self, request: HttpRequest, obj: AlertHook, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._try_saved(request, obj) or super().response_add(request, obj, post_url_continue)

    def response_change(self, request: HttpRequest, obj: AlertHook) -> HttpResponse:
        return self._try_saved(request, obj) or super().response_change(request, obj)

    def _try_saved(self, request: HttpRequest, hook: AlertHook) -> HttpResponse | None:
        """Send a test to what was just saved, if that button was pressed, and stay on its page."""
        if _BUTTON not in request.POST:
            return None
        self.send_test(request, AlertHook.objects.filter(pk=hook.pk))
        return HttpResponseRedirect(reverse("admin:endpoints_alerthook_change", args=[hook.pk]))

    @admin.display(description="told of")
    def told_of(self, hook: AlertHook) -> str:
        return ", ".join(hook.event_names())

    @admin.action(description="Send a test message", permissions=["change"])
    def send_test(self, request: HttpRequest, queryset: QuerySet[AlertHook]) -> None:
        hooks = []
        for row in queryset:
            try:
                hooks.append(build_hook(row))
            except HookError as error:
                messages.error(request, f"Hook {row.name} cannot be sent to. {error}")
        for hook, problem in zip(hooks, asyncio.run(_try_all(hooks)), strict=True):
            if problem:
                messages.error(request, f"Hook {hook.name} did not take the test message. {problem}")
            else:
                messages.success(request, f"Hook {hook.name} took the test message.")


async def _try_all(hooks: list[Hook]) -> list[str]:
    """Post a test to each, once and at the same time; what went wrong, empty where nothing did."""
    door = Transport()
    message = Message(AlertKind.ENDPOINT, "test", "test", "A test message from Olla.", time.time())

    async def attempt(hook: Hook) -> str:
        try:
            await post(hook, message, door)
        except SendError as error:
            return str(error)
        return ""

    try:
        return list(await asyncio.gather(*(attempt(hook) for hook in hooks)))
    finally:
        await door.aclose()
