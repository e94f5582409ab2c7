"""Routing rules and model aliases for the team: in their order, in words, with what they mean now."""

from __future__ import annotations

from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import SafeString

from endpoints import loading
from endpoints.findings import Finding
from endpoints.models import ModelAlias, RoutingRule
from endpoints.routing_forms import gather_known
from endpoints.rule_review import Known, RuleDraft, review_alias, review_condition, review_rule
from endpoints.rule_words import NOBODY_LEFT, describe_action, describe_conditions
from endpoints.rules import Rule, RuleAction
from endpoints.snapshot import UNIVERSAL, Snapshot, fold_model
from olla_site.portal.access import Right, action, page, request_rights
from olla_site.portal.answers import done, is_htmx, say
from olla_site.portal.asked import read_key
from olla_site.portal.places import PlaceDrawer
from olla_site.portal.rule_changes import BUTTONS, Change, OutdatedError, Placed, Step, make, place, read_rows
from proxy.live import live
from proxy.routing import native_names
from proxy.sieve import LiveView

RULES_SHOWN = 100
ALIASES_SHOWN = 50
TARGETS_SHOWN = 12
PLACES_SHOWN = 6
NAMING = frozenset({RuleAction.RESTRICT, RuleAction.PREFER, RuleAction.SPLIT})
LAST_WORD = "It has no conditions: it applies to every request, and no rule after it is reached."
UNREACHED = "Never reached: {name} before it applies to every request."


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule as the list shows it; `above` and `below` are the rules it could go past."""

    pk: int
    name: str
    number: int
    order: int
    enabled: bool
    when: str
    then: str
    broken: bool
    warnings: tuple[str, ...]
    places: SafeString  # whom it names now, where it names any
    above: int = 0
    below: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """One target of an alias, and who has it now."""

    name: str
    places: SafeString


@dataclass(frozen=True, slots=True)
class AliasRow:
    """An alias as the list shows it."""

    pk: int
    name: str
    one_model: bool
    targets: tuple[Target, ...]
    more: int
    works: bool
    notes: str
    warnings: tuple[str, ...]


@page()
async def rules(request: HttpRequest) -> HttpResponse:
    """Everything that steers requests. On the loop for the live counters; the tables in a thread."""
    answer: HttpResponse = await sync_to_async(_show)(request, live.view())
    return answer


def _show(request: HttpRequest, view: LiveView, name: str = "portal/rules.html") -> HttpResponse:
    snapshot = loading.current()
    rows, known = read_rows(), gather_known()
    aliases = list(ModelAlias.objects.order_by("name"))
    drawer = PlaceDrawer(snapshot, view, PLACES_SHOWN)
    user = request.user
    context = {
        "rules": draw_rules(rows[: RULES_SHOWN + 1], known, snapshot, drawer)[:RULES_SHOWN],
        "rules_left_out": max(0, len(rows) - RULES_SHOWN),
        # What the addresses of the rules' buttons begin with: four are reversed for each rule else.
        "address": reverse("portal:rules"),
        "enabled": sum(each.enabled for each in rows),
        "total": len(rows),
        "aliases": [draw_alias(each, known, snapshot, drawer) for each in aliases[:ALIASES_SHOWN]],
        "aliases_total": len(aliases),
        "aliases_left_out": max(0, len(aliases) - ALIASES_SHOWN),
        "may_change": request_rights(request).administer,
        "may_edit_rules": user.is_staff and user.has_perm("endpoints.change_routingrule"),
        "may_add_rules": user.is_staff and user.has_perm("endpoints.add_routingrule"),
        "may_edit_aliases": user.is_staff and user.has_perm("endpoints.change_modelalias"),
        "may_add_aliases": user.is_staff and user.has_perm("endpoints.add_modelalias"),
    }
    return render(request, name, context)


@action(Right.ADMINISTER)
async def change(request: HttpRequest, pk: int, name: str) -> HttpResponseBase:
    """One button of one rule."""
    if name not in BUTTONS:
        raise Http404
    answer: HttpResponseBase = await sync_to_async(_change)(request, pk, Step(name), live.view())
    return answer


def _change(request: HttpRequest, pk: int, step: Step, view: LiveView) -> HttpResponseBase:
    asked = Change(step, pk, read_key(request.POST.get("past")) or 0)
    try:
        text, level = make(asked, request.user.pk or 0), "success"
    except OutdatedError as error:
        text, level = str(error), "warning"
    if is_htmx(request):
        return say(_show(request, view, "portal/parts/rule_list.html"), text, level)
    return done(request, text, "portal:rules", level)


# ---------------------------------------------------------------------------------------------------- drawing


def draw_rules(rows: list[RoutingRule], known: Known, snapshot: Snapshot, drawer: PlaceDrawer) -> list[RuleRow]:
    """The rules in their order, with what is worth telling of each."""
    placed = [place(each) for each in rows]
    names = {each.id: each.name for each in snapshot.endpoints}
    drawn: list[RuleRow] = []
    catches_all = ""
    for index, (row, at) in enumerate(zip(rows, placed, strict=True)):
        warnings = list(_review(row, at, known))
        if at.enabled and catches_all:
            warnings.insert(0, UNREACHED.format(name=catches_all))
        elif at.enabled and at.rule is not None and not at.rule.conditions:
            catches_all = at.name
            warnings.append(LAST_WORD)
        then = describe_action(at.rule, names | _own_names(row)) if at.rule else f"cannot be used: {at.problem}"
        drawn.append(
            RuleRow(
                pk=at.pk,
                name=at.name,
                number=index + 1,
                order=at.order,
                enabled=at.enabled,
                when=describe_conditions(at.rule.conditions) if at.rule else "",
                then=then,
                broken=at.rule is None or then == NOBODY_LEFT,
                warnings=tuple(dict.fromkeys(warnings)),
                places=_named(at.rule, snapshot, drawer),
                above=placed[index - 1].pk if index else 0,
                below=placed[index + 1].pk if index + 1 < len(placed) else 0,
            )
        )
    return drawn


def _own_names(row: RoutingRule) -> dict[int, str]:
    """Endpoints the snapshot does not have yet."""
    return {each.pk: each.name for each in row.endpoints.all()}


def _review(row: RoutingRule, at: Placed, known: Known) -> list[str]:
    """What the form would say of a stored rule now."""
    if at.rule is None:
        return []
    draft = RuleDraft(
        action=at.rule.action,
        tags=row.tags,
        endpoints=bool(at.rule.endpoint_ids),
        model=row.model,
        policy=row.policy,
        strategy=row.strategy,
        fallback=row.fallback,
        percentage=row.percentage,
        message=row.message,
    )
    found: list[Finding] = [*review_rule(draft, known)]
    for condition in at.rule.conditions:
        found += review_condition(condition)
    return [each.message for each in found]


def _named(rule: Rule | None, snapshot: Snapshot, drawer: PlaceDrawer) -> SafeString:
    if rule is None or rule.action not in NAMING:
        return SafeString()
    return drawer.draw((e.id for e in snapshot.endpoints if rule.names(e.id, e.tags)), "no endpoint").html


def draw_alias(row: ModelAlias, known: Known, snapshot: Snapshot, drawer: PlaceDrawer) -> AliasRow:
    """An alias: its targets in their order, each with who has it now."""
    names = row.target_names()
    others = {name: targets for name, targets in known.aliases.items() if name != fold_model(row.name)}
    findings = review_alias(row.name, names, Known(known.models, others, known.tags))
    shown = names[:TARGETS_SHOWN]
    places = [drawer.draw(native_names(snapshot, UNIVERSAL, name), "no endpoint lists it") for name in shown]
    return AliasRow(
        pk=row.pk,
        name=row.name,
        one_model=row.one_model,
        targets=tuple(Target(name, each.html) for name, each in zip(shown, places, strict=True)),
        more=max(0, len(names) - TARGETS_SHOWN),
        works=any(each.works for each in places),
        notes=row.notes,
        warnings=tuple(each.message for each in findings),
    )
