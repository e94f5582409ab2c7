"""The operator's desk for routing: model aliases and rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet, ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.text import Truncator

from endpoints.models import ModelAlias, RoutingRule, RuleCondition
from endpoints.records import build_rule
from endpoints.routing_forms import AliasForm, ConditionForm, RuleForm
from endpoints.rule_words import describe_rule

if TYPE_CHECKING:
    # Generic for the type checker only: Django's own classes take no parameters at run time.
    _AliasAdmin = admin.ModelAdmin[ModelAlias]
    _RuleAdmin = admin.ModelAdmin[RoutingRule]
    _Conditions = admin.TabularInline[RuleCondition, RoutingRule]
    _FormSet = BaseInlineFormSet[RuleCondition, RoutingRule, ModelForm[RuleCondition]]
else:
    _AliasAdmin = _RuleAdmin = admin.ModelAdmin
    _Conditions = admin.TabularInline
    _FormSet = BaseInlineFormSet

# Field, what it is of a request, an example; shown above the conditions.
CONDITION_HELP = (
    ("Model", "the model name as the client wrote it", "matches llama*"),
    ("Provider prefix", "the part after /olla/; proxy is the one for all kinds", "is openai"),
    ("Path", "the rest of the address, without query", "is /v1/embeddings"),
    ("Header", "a request header by its name; a header that is absent equals nothing", "X-Team is blue"),
    ("Client network", "where the client connects from: a network or one address", "is 10.1.0.0/16"),
    ("Capability", "what the request needs: tools, vision or embeddings", "is vision"),
)
OPERATOR_HELP = (
    ("is", "the whole text is equal", "llama3:8b"),
    ("is not", "it is not, or it is absent", "llama3:8b"),
    ("matches", "* stands for any text (slashes too), ? for one character, [ab] for one of them", "*/v1/chat/*"),
    ("does not match", "it does not, or it is absent", "gpt-*"),
)


def tell_warnings(request: HttpRequest, form: Any) -> None:
    """Show the warnings of a saved form."""
    for text in getattr(form, "warnings", ()):
        messages.warning(request, text)


class PreviewButton:
    """Mixed into an admin whose forms can be tried on logged requests before they are saved."""

    preview_view: ClassVar[str]  # takes the posted form, of a stored row or a new one
    form_context: ClassVar[Mapping[str, Any]] = {}  # what else the form's template shows

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The form, which knows where it can be tried."""
        preview = {"preview_address": self._find_preview(request, object_id)}
        context = {**self.form_context, **preview, **(extra_context or {})}
        answer: HttpResponse = super().changeform_view(request, object_id, form_url, context)  # type: ignore[misc]
        return answer

    def _find_preview(self, request: HttpRequest, object_id: str | None) -> str:
        """Where the form is sent to be tried; empty where there is no portal, or no right to it."""
        if not request.user.has_perm("portal.administer"):
            return ""
        try:
            return reverse(self.preview_view, args=[object_id] if object_id else [])
        except NoReverseMatch:
            return ""


@admin.register(ModelAlias)
class ModelAliasAdmin(PreviewButton, _AliasAdmin):
    """Names clients may use, and the models they stand for."""

    form = AliasForm
    preview_view = "portal:alias_preview_form"
    list_display = ("name", "targets_text", "one_model", "notes_text")
    search_fields = ("name", "targets", "notes")
    list_per_page = 100

    class Media:
        css = {"all": ("endpoints/admin.css",)}  # noqa: RUF012 - Django reads this as plain data

    @admin.display(description="models, best first")
    def targets_text(self, alias: ModelAlias) -> str:
        return Truncator(", ".join(alias.target_names())).chars(200)

    @admin.display(description="notes")
    def notes_text(self, alias: ModelAlias) -> str:
        return Truncator(alias.notes).chars(80)

    def save_model(self, request: HttpRequest, obj: ModelAlias, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        tell_warnings(request, form)


class ConditionInline(_Conditions):
    """A rule's conditions. They are part of the rule: whoever may change it may change them, nobody else."""

    model = RuleCondition
    form = ConditionForm
    extra = 0
    verbose_name_plural = "Conditions: all of them must hold; without any the rule applies to every request"

    def has_add_permission(self, request: HttpRequest, obj: RoutingRule | None = None) -> bool:
        return request.user.has_perm(
            "endpoints.add_routingrule" if obj is None else "endpoints.change_routingrule"
        )

    def has_change_permission(self, request: HttpRequest, obj: RoutingRule | None = None) -> bool:
        return request.user.has_perm("endpoints.change_routingrule")

    def has_delete_permission(self, request: HttpRequest, obj: RoutingRule | None = None) -> bool:
        return request.user.has_perm("endpoints.change_routingrule")

    def has_view_permission(self, request: HttpRequest, obj: RoutingRule | None = None) -> bool:
        return self.has_change_permission(request) or request.user.has_perm("endpoints.view_routingrule")


@admin.register(RoutingRule)
class RoutingRuleAdmin(PreviewButton, _RuleAdmin):
    """Rules in the order they are tried."""

    form = RuleForm
    preview_view = "portal:rule_preview_form"
    form_context: ClassVar = {"condition_help": CONDITION_HELP, "operator_help": OPERATOR_HELP}
    inlines = (ConditionInline,)
    list_display = ("name", "order", "enabled", "summary")
    list_editable = ("order",)
    list_filter = ("enabled", "action")
    search_fields = ("name", "tags", "model", "conditions__value")
    ordering = ("order", "name")
    list_per_page = 50
    filter_horizontal = ("endpoints",)
    actions = ("enable", "disable")
    fieldsets = (
        (None, {"fields": ("name", "order", "enabled")}),
        (
            "What it does",
            {
                "fields": (
                    "action", "tags", "endpoints", "model", "policy", "strategy", "fallback", "percentage",
                    "message",
                ),
                "description": "Only the fields of the chosen action are filled in.",
            },
        ),
    )  # fmt: skip

    class Media:
        js = ("endpoints/rule_form.js",)
        css = {"all": ("endpoints/admin.css",)}  # noqa: RUF012 - Django reads this as plain data

    def get_queryset(self, request: HttpRequest) -> QuerySet[RoutingRule]:
        return super().get_queryset(request).prefetch_related("conditions", "endpoints")

    @admin.display(description="what it does")
    def summary(self, rule: RoutingRule) -> str:
        names = {each.pk: each.name for each in rule.endpoints.all()}
        try:
            return Truncator(describe_rule(build_rule(rule), names)).chars(300)
        except ValueError as error:
            return f"cannot be used: {error}"

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[RoutingRule]) -> None:
        self._switch(request, queryset, enabled=True)

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[RoutingRule]) -> None:
        self._switch(request, queryset, enabled=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[RoutingRule], *, enabled: bool) -> None:
        word = "enabled" if enabled else "disabled"
        changed = list(queryset.filter(enabled=not enabled))
        if not changed:
            messages.info(request, f"Nothing to do: already {word}.")
            return
        RoutingRule.objects.filter(pk__in=[each.pk for each in changed]).update(enabled=enabled)
        LogEntry.objects.log_actions(request.user.pk or 0, changed, CHANGE, change_message=f"Rule {word}.")
        messages.success(request, f"{', '.join(each.name for each in changed[:5])}: {word}.")

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        tell_warnings(request, form)
        for formset in formsets:
            for row in formset.forms:
                if row not in formset.deleted_forms:
                    tell_warnings(request, row)
        rule: RoutingRule = form.instance
        if rule.enabled and not rule.conditions.exists():
            messages.warning(
                request,
                f"{rule.name} has no conditions: it applies to every request, and no rule after it is reached.",
            )
