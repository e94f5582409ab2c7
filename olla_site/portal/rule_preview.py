"""What a change of the rules would do to the requests of the log: started, watched, stopped, made."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from msgspec.structs import replace

from endpoints import loading
from endpoints.conf import conf
from endpoints.models import RoutingRule
from endpoints.rule_draft import read_draft
from endpoints.rule_words import describe_rule
from endpoints.snapshot import Snapshot
from olla_site.portal.access import Right, action, page
from olla_site.portal.answers import is_htmx
from olla_site.portal.preview_jobs import Job, desk
from olla_site.portal.preview_report import build_report
from olla_site.portal.rule_changes import (
    BUTTONS,
    Change,
    OutdatedError,
    Placed,
    Step,
    foresee,
    place,
    read_rows,
    rules_of,
)
from proxy.live import live, plan
from proxy.models import RequestLog, time_of_key
from proxy.record import Outcome
from proxy.rerouting import Comparison, Defaults, Logged, looks_at_unknown, with_rules
from proxy.routing import Refresh
from proxy.sieve import LiveView

SIZES = (100, 1000, 5000)
USUAL = 1000
_FIELDS = ("id", "method", "path", "provider", "model", "client")
TITLES = {
    Step.UP: "moves up",
    Step.DOWN: "moves down",
    Step.ENABLE: "is enabled",
    Step.DISABLE: "is disabled",
    Step.DELETE: "is deleted",
}


@action(Right.ADMINISTER)
async def preview(request: HttpRequest) -> HttpResponseBase:
    """A button of the list: `step`; `rule`, and `past` for a move, may stand in the address."""
    values = {**request.GET.dict(), **request.POST.dict()}
    if values.get("step") not in BUTTONS:
        raise Http404
    change = Change(Step(values["step"]), _number(values.get("rule")), _number(values.get("past")))
    answer: HttpResponseBase = await sync_to_async(_start)(request, change, look())
    return answer


@action(Right.ADMINISTER)
async def preview_form(request: HttpRequest, pk: int = 0) -> HttpResponseBase:
    """The admin's form of a rule as it is typed, of a stored rule or a new one."""
    answer: HttpResponseBase = await sync_to_async(_start_form)(request, pk, look())
    return answer


@action(Right.ADMINISTER)
async def again(request: HttpRequest, key: str) -> HttpResponseBase:
    """The same change, over as many requests as are chosen now and by the rules there are now."""
    answer: HttpResponseBase = await sync_to_async(_start)(request, _find(request, key).change, look())
    return answer


@action(Right.ADMINISTER)
def cancel(request: HttpRequest, key: str) -> HttpResponseBase:
    """Stop a preview; what it has found until then stays."""
    job = _find(request, key)
    job.stop.set()
    job.ended.wait(2)
    return _show(request, job) if is_htmx(request) else redirect("portal:rule_preview", key)


@page(Right.ADMINISTER)
def show(request: HttpRequest, key: str) -> HttpResponse:
    """A preview: how far it is, or what it found. htmx asks for the changing part alone."""
    job = desk.find(key, request.user.pk or 0)
    if job is None:
        text = "This preview is not kept any more: previews go after a quarter of an hour, and with the server."
        return refuse(request, [text], status=404)
    return _show(request, job)


def look() -> LiveView:
    """The moment a preview is judged by; taken on the loop, for what it holds changes there."""
    view = live.view()
    return replace(view, demoted=dict(view.demoted))


def _show(request: HttpRequest, job: Job) -> HttpResponse:
    context = {
        "job": job,
        "report": build_report(job.comparison) if job.is_over else None,
        "sizes": SIZES,
        "is_form": job.change.step is Step.SAVE,
        "oldest": time_of_key(job.oldest) if job.oldest else None,
    }
    name = "portal/parts/preview.html" if is_htmx(request) else "portal/rule_preview.html"
    return render(request, name, context)


def refuse(request: HttpRequest, problems: list[str], status: int = 422) -> HttpResponse:
    """Why there is no preview."""
    return render(request, "portal/rule_preview.html", {"problems": problems}, status=status)


def _find(request: HttpRequest, key: str) -> Job:
    job = desk.find(key, request.user.pk or 0)
    if job is None:
        raise Http404
    return job


def _start_form(request: HttpRequest, pk: int, view: LiveView) -> HttpResponseBase:
    stored = get_object_or_404(RoutingRule, pk=pk) if pk else None
    admin_desk: Any = admin.site.get_model_admin(RoutingRule)
    draft, problems = read_draft(admin_desk, request, stored)
    if draft is None:
        return refuse(request, problems)
    return _start(request, Change(Step.SAVE, pk, draft=draft), view)


def _start(request: HttpRequest, change: Change, view: LiveView) -> HttpResponseBase:
    size = _number(request.POST.get("size"))
    try:
        job = make_job(request.user.pk or 0, change, view, size if size in SIZES else USUAL)
    except OutdatedError as error:
        return refuse(request, [str(error)], status=409)
    return redirect("portal:rule_preview", desk.start(job).key)


def make_job(owner: int, change: Change, view: LiveView, size: int) -> Job:
    """The job of a change, by the rules and the log as they are now. Raises OutdatedError."""
    snapshot = loading.current()
    before = [place(row) for row in read_rows()]
    after = foresee(before, change)
    old, new = _of(before, change.pk), _of(after, change.pk)
    names = {each.id: each.name for each in snapshot.endpoints} | dict(
        change.draft.endpoint_names if change.draft else ()
    )
    concerned = {each for each in (*rules_of(before), *rules_of(after)) if looks_at_unknown(each)}
    return Job(
        owner=owner,
        change=change,
        size=size,
        words=(_tell(old, before, names), _tell(new, after, names)),
        title=_title(change, old, new),
        logged=read_log(size),
        comparison=compare(snapshot, before, after, view),
        warnings=change.draft.warnings if change.draft else (),
        unknown=tuple(dict.fromkeys(each.name for each in concerned)),
    )


def compare(snapshot: Snapshot, before: list[Placed], after: list[Placed], view: LiveView) -> Comparison:
    """The comparison of two lists of rules, with nothing judged yet."""
    defaults = Defaults(plan(), plan(Refresh.DONE), conf().load_balancer)
    return Comparison(
        with_rules(snapshot, rules_of(before)), with_rules(snapshot, rules_of(after)), view, defaults
    )


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


def _number(text: str | None) -> int:
    """A number somebody sent; 0 for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0
