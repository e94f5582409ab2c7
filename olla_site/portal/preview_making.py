"""The jobs of previews: what is compared with what, and in which words, for a change of rules or of aliases."""

from __future__ import annotations

from django.db.models import BooleanField, ExpressionWrapper, Q

from endpoints import loading
from endpoints.conf import conf
from endpoints.records import load_aliases
from endpoints.rule_words import describe_rule
from endpoints.rules import Rule
from endpoints.snapshot import Snapshot, with_aliases
from olla_site.portal.alias_changes import (
    AliasChange,
    describe_alias,
    describe_change,
    find_alias,
    foresee_aliases,
)
from olla_site.portal.preview_jobs import Job
from olla_site.portal.rule_changes import Change, Placed, Step, foresee, place, read_rows, rules_of
from proxy.live import plan
from proxy.models import RequestLog
from proxy.record import Outcome
from proxy.rerouting import Comparison, Defaults, Logged, looks_at_unknown, with_rules
from proxy.routing import Refresh
from proxy.sieve import LiveView

_FIELDS = ("id", "method", "path", "provider", "model", "client")
TITLES = {
    Step.UP: "moves up",
    Step.DOWN: "moves down",
    Step.ENABLE: "is enabled",
    Step.DISABLE: "is disabled",
    Step.DELETE: "is deleted",
}


def make_job(owner: int, change: Change | AliasChange, view: LiveView, size: int) -> Job:
    """The job of a change, by the rules, aliases and log as they are now. Raises OutdatedError."""
    if isinstance(change, AliasChange):
        return _make_alias_job(owner, change, view, size)
    snapshot = loading.current()
    before = [place(row) for row in read_rows()]
    after = foresee(before, change)
    old, new = _of(before, change.pk), _of(after, change.pk)
    names = {each.id: each.name for each in snapshot.endpoints} | dict(
        change.draft.endpoint_names if change.draft else ()
    )
    return Job(
        owner=owner,
        change=change,
        size=size,
        words=(_tell(old, before, names), _tell(new, after, names)),
        title=_title(change, old, new),
        logged=read_log(size),
        comparison=_compare(with_rules(snapshot, rules_of(before)), with_rules(snapshot, rules_of(after)), view),
        warnings=change.draft.warnings if change.draft else (),
        unknown=_name_unknown(*rules_of(before), *rules_of(after)),
    )


def _make_alias_job(owner: int, change: AliasChange, view: LiveView, size: int) -> Job:
    rules, aliases = rules_of([place(row) for row in read_rows()]), load_aliases()
    old = find_alias(change.pk)
    snapshot = with_rules(loading.current(), rules)
    after = with_aliases(snapshot, foresee_aliases(aliases, old, change.alias))
    return Job(
        owner=owner,
        change=change,
        size=size,
        words=(describe_alias(old), describe_alias(change.alias)),
        title=describe_change(change, old),
        logged=read_log(size),
        comparison=_compare(with_aliases(snapshot, aliases), after, view),
        warnings=change.warnings,
        unknown=_name_unknown(*rules),
    )


def _name_unknown(*rules: Rule) -> tuple[str, ...]:
    """Rules with conditions on what the log lacks."""
    return tuple(dict.fromkeys(each.name for each in rules if looks_at_unknown(each)))


def _compare(before: Snapshot, after: Snapshot, view: LiveView) -> Comparison:
    """The comparison of two pictures nobody else routes by, with nothing judged yet."""
    return Comparison(before, after, view, Defaults(plan(), plan(Refresh.DONE), conf().load_balancer))


def read_log(size: int) -> list[Logged]:
    """The last requests of the log, newest first; one query, no text but what is needed."""
    early = ExpressionWrapper(Q(outcome=Outcome.REJECTED, trace=""), output_field=BooleanField())
    rows = RequestLog.objects.annotate(early=early).order_by("-id").values_list(*_FIELDS, "early")
    return [Logged(*row) for row in rows[:size]]


def _of(placed: list[Placed], pk: int) -> Placed | None:
    return next((each for each in placed if each.pk == pk), None)


def _tell(row: Placed | None, placed: list[Placed], names: dict[int, str]) -> str:
    """A rule at its place, in words: `2nd of 5, enabled: when model is m: only ...`."""
    if row is None:
        return ""
    words = describe_rule(row.rule, names) if row.rule else f"cannot be used: {row.problem}"
    state = "" if row.enabled else ", disabled"
    return f"No. {placed.index(row) + 1} of {len(placed)}{state}: {words}"


def _title(change: Change, old: Placed | None, new: Placed | None) -> str:
    row = new or old
    name = row.name if row else ""
    if change.step is Step.SAVE:
        return f"If {name} is saved like this" if old else f"If {name} is added"
    return f"If {name} {TITLES[change.step]}"
