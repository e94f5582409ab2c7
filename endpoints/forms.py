"""The form of an endpoint: write-only secrets, spellings made canonical, findings put at their fields."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils import timezone

from endpoints.ca_files import CaFileError, check_ca_file
from endpoints.conf import conf
from endpoints.facts import kind_of
from endpoints.health import OperatorState
from endpoints.lookup import own_address_test, resolve_hosts
from endpoints.models import Endpoint, backend_types
from endpoints.profiles import PROFILES, parse_backend_type, profile_for
from endpoints.records import endpoint_limits
from endpoints.rule_review import tidy_tags
from endpoints.secrets import Secret
from endpoints.validation import (
    URL_FIELDS,
    Draft,
    Severity,
    Surroundings,
    hosts_of,
    is_stored,
    parse_patterns,
    review,
)
from endpoints.write_only import (
    SecretAction,
    SecretEdit,
    blank_header_lines,
    is_placeholder,
    mask_header_lines,
    restore_header_lines,
)

if TYPE_CHECKING:
    # Generic for the type checker only: Django's own class takes no parameters at run time.
    _ModelForm = forms.ModelForm[Endpoint]
else:
    _ModelForm = forms.ModelForm

SECRET_FIELDS = ("auth_username", "auth_secret")
# Which stored secrets an authentication type uses; the others are removed on save.
USED_SECRETS = {"bearer": {"auth_secret"}, "api_key": {"auth_secret"}, "basic": set(SECRET_FIELDS)}
# Everything between scheme and last @: how a URL is shown again without the credentials typed into it.
_CREDENTIALS_IN_URL = re.compile(r"^(\s*(?:[A-Za-z]*:)?/{0,2}).*@", re.DOTALL)


class WriteOnlyInput(forms.TextInput):
    """An input that shows whether something is stored, never what, with a choice to remove it."""

    template_name = "endpoints/write_only_input.html"
    stored: Secret = Secret("")

    def __init__(self, *, password: bool) -> None:
        attrs = {"autocomplete": "new-password" if password else "off", "spellcheck": "false"}
        super().__init__({"class": "vTextField", **attrs})
        self.input_type = "password" if password else "text"

    def value_from_datadict(self, data: Any, files: Any, name: str) -> SecretEdit:
        text = data.get(name) or ""
        if text:
            return SecretEdit(SecretAction.REPLACE, Secret(text))
        remove = data.get(f"{name}-remove") not in (None, "", "false")
        return SecretEdit(SecretAction.REMOVE if remove else SecretAction.KEEP)

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        # Absent means kept, which must go through clean() like any other answer.
        return False

    def format_value(self, value: Any) -> None:
        """Nothing: a secret is never put into a page."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, None, attrs)
        context["widget"] |= {
            "stored": is_stored(self.stored),
            "placeholder_text": self.stored.reveal() if is_placeholder(self.stored) else "",
            "remove_name": f"{name}-remove",
        }
        return context


class WriteOnlyField(forms.Field):
    """A field whose clean value is a SecretEdit."""

    widget: WriteOnlyInput

    def has_changed(self, initial: Any, data: Any) -> bool:
        return isinstance(data, SecretEdit) and data.action is not SecretAction.KEEP


class HeaderLines(forms.Textarea):
    """`Name: value` lines; stored values are masked and values just typed are not shown again."""

    stored: Secret = Secret("")

    def format_value(self, value: Any) -> str:
        if isinstance(value, Secret):
            return mask_header_lines(value)
        return blank_header_lines(Secret(value or ""))


class HeaderLinesField(forms.CharField):
    """Extra headers as typed."""

    widget = HeaderLines

    def has_changed(self, initial: Any, data: Any) -> bool:
        return (data or "").split() != mask_header_lines(initial or Secret("")).split()


class BackendTypeField(forms.ChoiceField):
    """A backend type in any of its spellings."""

    def to_python(self, value: Any) -> str:
        return parse_backend_type(str(value or "auto")) or str(value)


class EndpointForm(_ModelForm):
    """Creates and edits an endpoint. After `is_valid`, `warnings` holds what is worth telling.

    `addresses` may be given by a caller that has looked the hosts up already (outside a transaction).
    """

    addresses: dict[str, tuple[str, ...]] | None = None

    backend_type = BackendTypeField(
        label="Type",
        choices=backend_types,
        initial="auto",
        help_text="What kind of server it is. Detect automatically asks it.",
        error_messages={"invalid_choice": f"Unknown type. Known are: auto, {', '.join(PROFILES)}."},
    )
    auth_username = WriteOnlyField(
        label="User name",
        required=False,
        widget=WriteOnlyInput(password=False),
        help_text="For user name and password.",
    )
    auth_secret = WriteOnlyField(
        label="Token, key or password",
        required=False,
        widget=WriteOnlyInput(password=True),
        help_text="Stored encrypted and never shown again. ${NAME} reads an environment variable of this server.",
    )
    extra_headers = HeaderLinesField(
        label="Extra headers",
        required=False,
        widget=HeaderLines({"rows": 3, "spellcheck": "false", "autocomplete": "off"}),
        help_text="One a line, Name: value. Stored values show as ********; a line left so keeps its value.",
    )

    class Meta:
        model = Endpoint
        widgets = {  # noqa: RUF012 - Django reads this as plain data
            name: forms.Textarea({"rows": 3, "spellcheck": "false"})
            for name in ("model_include", "model_exclude", "notes")
        }
        fields = (
            "name", "url", "backend_type", "state", "drain_then_disable", "maintenance_from", "maintenance_until",
            "priority", "weight", "tags", "notes", "preserve_path",
            "health_check_url", "model_url", "check_interval", "check_timeout", "model_include", "model_exclude",
            "auth_type", "auth_header", "auth_username", "auth_secret", "extra_headers", "forward_client_auth",
            "connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout", "verify_tls", "ca_file",
            "max_concurrent", "requests_per_minute", "retry_statuses", "anthropic_mode", "anthropic_path",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.warnings: list[str] = []
        for name in (*SECRET_FIELDS, "extra_headers"):
            if name in self.fields:
                widget: Any = self.fields[name].widget
                # The admin may have wrapped nothing here, but a read-only form has no such field.
                widget.stored = getattr(self.instance, name)
        self._show_inherited()

    def _show_inherited(self) -> None:
        """What holds where a timeout is left empty, in its empty field."""
        kind = kind_of(self.instance)
        inherited = endpoint_limits(Endpoint(), kind)
        by_kind = "" if conf().first_byte_timeout else f", for {profile_for(kind).title}"
        for name, seconds, why in (
            ("connect_timeout", inherited.connect, ""),
            ("first_byte_timeout", inherited.first_byte, by_kind),
            ("idle_timeout", inherited.idle, ""),
            ("total_timeout", inherited.total, ""),
        ):
            if name in self.fields:
                shown = f"{seconds:g}{why}" if seconds else "no limit"
                self.fields[name].widget.attrs["placeholder"] = shown

    def clean(self) -> dict[str, Any]:
        """Judge the whole and turn the edits of secrets into what will be stored."""
        data = super().clean() or self.cleaned_data
        draft = self._draft(data)
        stored = self.instance if self.instance.pk else None
        unparsed = set(self.errors)
        for finding in review(draft, stored, self._surroundings(draft)):
            if finding.severity is Severity.WARNING:
                self.warnings.append(finding.message)
            elif finding.field not in unparsed:
                self.add_error(finding.field if finding.field in self.fields else None, finding.message)
        self._warn_of_same_url(draft.url)
        self._hide_credentials_in_urls()
        self._settle_secrets(draft)
        self._settle_drain(data)
        for name in ("model_include", "model_exclude"):
            if name in data:
                data[name] = "\n".join(parse_patterns(data[name]))
        return data

    def clean_retry_statuses(self) -> str:
        """Statuses as `502, 503`. Refuses what is no error status."""
        parts = str(self.cleaned_data["retry_statuses"]).replace(",", " ").split()
        for part in parts:
            if not (part.isascii() and part.isdecimal() and 400 <= int(part) <= 599):
                raise forms.ValidationError(f"{part[:20]!r} is no error status: use numbers from 400 to 599.")
        return ", ".join(dict.fromkeys(parts))

    def clean_tags(self) -> str:
        """Tags in one spelling."""
        return tidy_tags(self.cleaned_data["tags"])

    def clean_ca_file(self) -> str:
        """The name of a CA file in the folder for them."""
        name: str = self.cleaned_data["ca_file"]
        try:
            check_ca_file(name)
        except CaFileError as problem:
            raise forms.ValidationError(str(problem)) from problem
        return name

    def _draft(self, data: dict[str, Any]) -> Draft:
        """The record to review; a field that did not even parse counts with its stored value."""
        values: dict[str, Any] = {}
        for field in fields(Draft):
            value = data.get(field.name)
            if field.name not in data and field.name not in (*SECRET_FIELDS, "extra_headers"):
                value = getattr(self.instance, field.name)
            values[field.name] = value
        values["extra_headers"] = Secret(values["extra_headers"] or "")
        for name in SECRET_FIELDS:
            values[name] = values[name] or SecretEdit()
        return Draft(**values)

    def _surroundings(self, draft: Draft) -> Surroundings:
        settings = conf()
        addresses, urls = self.addresses, [getattr(draft, name) for name in URL_FIELDS]
        return Surroundings(
            addresses=resolve_hosts(hosts_of(urls)) if addresses is None else addresses,
            own_port=settings.port,
            is_own_address=own_address_test(settings.host),
            env=os.environ,
            env_allow=settings.env_allow,
            now=timezone.now(),
        )

    def _warn_of_same_url(self, url: str) -> None:
        twin = Endpoint.objects.filter(url=url).exclude(pk=self.instance.pk).first() if url else None
        if twin:
            self.warnings.append(f"{twin.name} has the same URL: requests to both reach one server.")

    def _hide_credentials_in_urls(self) -> None:
        """Take the user part out of refused URLs, so that the page that explains does not repeat it."""
        for name in URL_FIELDS:
            typed = self.data.get(self.add_prefix(name), "")
            if name in self.errors and "@" in typed:
                shown: Any = self.data
                self.data = shown = shown.copy()  # a QueryDict's copy can be changed
                shown[self.add_prefix(name)] = _CREDENTIALS_IN_URL.sub(r"\1", typed)

    def _settle_drain(self, data: dict[str, Any]) -> None:
        """ "Disable when drained" goes with draining, and stays as its trace on what it disabled."""
        state = data.get("state")
        disabled_by_itself = state == self.instance.state == OperatorState.DISABLED and self.instance.pk
        if data.get("drain_then_disable") and state != OperatorState.DRAINING and not disabled_by_itself:
            data["drain_then_disable"] = False
            if "drain_then_disable" in self.changed_data:
                self.warnings.append("Disable when drained counts for the state Draining only: not stored.")

    def _settle_secrets(self, draft: Draft) -> None:
        used = USED_SECRETS.get(draft.auth_type, set())
        for name in SECRET_FIELDS:
            edit: SecretEdit = getattr(draft, name)
            keeps = name in used
            self.cleaned_data[name] = edit.apply(getattr(self.instance, name)) if keeps else Secret("")
        stored: Secret = self.instance.extra_headers
        if not draft.extra_headers.reveal().strip() and is_stored(stored) and not stored:
            self.cleaned_data["extra_headers"] = stored  # unreadable: kept until something replaces it
            return
        lines, _ = restore_header_lines(draft.extra_headers, stored)
        self.cleaned_data["extra_headers"] = Secret("\n".join(line.build() for line in lines))
