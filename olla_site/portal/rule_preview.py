"""What a change of rules or aliases would do to the requests of the log: started, watched, stopped, made."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from msgspec.structs import replace

from endpoints.models import ModelAlias, RoutingRule
from endpoints.rule_draft import read_draft
from olla_site.portal.access import Right, action, page
from olla_site.portal.alias_changes import AliasChange, read_alias_draft
from olla_site.portal.answers import is_htmx
from olla_site.portal.asked import read_key
from olla_site.portal.preview_jobs import Job, desk
from olla_site.portal.preview_making import make_job
from olla_site.portal.preview_report import build_report
from olla_site.portal.rule_changes import BUTTONS, Change, OutdatedError, Step
from proxy.live import live
from proxy.models import time_of_key
from proxy.sieve import LiveView

SIZES = (100, 1000, 5000)
USUAL = 1000


@action(Right.ADMINISTER)
async def preview(request: HttpRequest) -> HttpResponseBase:
    """A button of the list: `step`; `rule`, and `past` for a move, may stand in the address."""
    values = {**request.GET.dict(), **request.POST.dict()}
    if values.get("step") not in BUTTONS:
        raise Http404
    change = Change(Step(values["step"]), read_key(values.get("rule")) or 0, read_key(values.get("past")) or 0)
    answer: HttpResponseBase = await sync_to_async(_start)(request, change, look())
    return answer


@action(Right.ADMINISTER)
async def preview_form(request: HttpRequest, pk: int = 0) -> HttpResponseBase:
    """The admin's form of a rule as it is typed, of a stored rule or a new one."""
    answer: HttpResponseBase = await sync_to_async(_start_form)(request, pk, look())
    return answer


@action(Right.ADMINISTER)
async def preview_alias_form(request: HttpRequest, pk: int = 0) -> HttpResponseBase:
    """The admin's form of an alias as it is typed, of a stored alias or a new one."""
    answer: HttpResponseBase = await sync_to_async(_start_alias_form)(request, pk, look())
    return answer


@action(Right.ADMINISTER)
async def preview_alias_deletion(request: HttpRequest, pk: int) -> HttpResponseBase:
    """An alias of the list, were it gone."""
    answer: HttpResponseBase = await sync_to_async(_start)(request, AliasChange(Step.DELETE, pk), look())
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
    over = job.is_over  # asked once: it may end while the page is written
    context = {
        "job": job,
        "over": over,
        "report": build_report(job.comparison) if over else None,
        "sizes": SIZES,
        "is_form": job.change.step is Step.SAVE,
        "is_alias": isinstance(job.change, AliasChange),
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


def _start_alias_form(request: HttpRequest, pk: int, view: LiveView) -> HttpResponseBase:
    stored = get_object_or_404(ModelAlias, pk=pk) if pk else None
    admin_desk: Any = admin.site.get_model_admin(ModelAlias)
    change, problems = read_alias_draft(admin_desk, request, stored)
    return refuse(request, problems) if change is None else _start(request, change, view)


def _start(request: HttpRequest, change: Change | AliasChange, view: LiveView) -> HttpResponseBase:
    size = read_key(request.POST.get("size"))
    try:
        job = make_job(request.user.pk or 0, change, view, size if size in SIZES else USUAL)
    except OutdatedError as error:
        return refuse(request, [str(error)], status=409)
    return redirect("portal:rule_preview", desk.start(job).key)
