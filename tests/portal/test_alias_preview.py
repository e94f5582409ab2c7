"""The preview of a change of aliases: what it says is what then happens, and nothing is stored by it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.urls import reverse

from endpoints.models import ModelAlias, Revision
from proxy.live import live
from tests.endpoints.rule_desk import LLAMA, make_rule, staff
from tests.portal.test_rule_preview import counts, fates, fleet, history, quiet_process, shows

pytestmark = pytest.mark.django_db
__all__ = ["quiet_process"]  # a fixture
FORM = {"name": "fast", "targets": "llama3:8b\nqwen3", "notes": ""}
CASES: dict[str, dict[str, str]] = {
    "other targets": {"targets": "llama3"},
    "another order": {"targets": "qwen3\nllama3:8b"},
    "another name": {"name": "slow"},
    "nothing": {},
    "nowhere": {"targets": "gone"},
    "over a model": {"name": "llama3", "targets": "qwen3"},
    "one model": {"name": "twins", "targets": "llama3:8b\nqwen3", "one_model": "on"},
}
QUIET = {("nothing", False), ("nowhere", True), ("another name", True)}  # what the requests do not feel


def admin_page(name: str, *args: int) -> str:
    return reverse(f"admin:endpoints_modelalias_{name}", args=args)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("is_new", [True, False])
def test_it_foretells_what_then_happens(administrator, case, is_new):
    fleet()
    history(60)
    make_rule(LLAMA, name="r", action="prefer", tags="spare", message="")
    alias = ModelAlias.objects.get()
    if is_new:
        alias.delete()
    view = live.view()
    before = fates(view)
    data = {**FORM, **CASES[case]}
    target, save = ("", admin_page("add")) if is_new else (f"{alias.pk}/", admin_page("change", alias.pk))

    said = shows(administrator, administrator.post(f"/rules/preview/alias/{target}", data))
    assert fates(view) == before
    assert administrator.post(save, data).status_code == 302
    after = fates(view)

    changed = {key for key in before if before[key] != after[key]}
    assert sum(counts(said).values()) == 60
    assert sum(number for kind, number in counts(said).items() if kind != "same") == len(changed)
    assert bool(changed) is ((case, is_new) not in QUIET)
    assert counts(said)["refused"] == sum(bool(before[k].tiers) and not after[k].tiers for k in before)
    assert counts(said)["answered"] == sum(bool(after[k].tiers) and not before[k].tiers for k in before)


def test_it_foretells_a_deletion_and_leads_to_it(administrator):
    fleet()
    history(60)
    alias = ModelAlias.objects.get()
    before = fates(live.view())

    said = shows(administrator, administrator.post(f"/rules/preview/alias/{alias.pk}/delete/"))
    assert "If the alias fast is deleted" in said
    assert "fast is llama3:8b, else qwen3" in said
    assert f'href="{admin_page("delete", alias.pk)}"' in said
    administrator.post(admin_page("delete", alias.pk), {"post": "yes"})
    after = fates(live.view())

    lost = sum(bool(before[key].tiers) and not after[key].tiers for key in before)
    assert counts(said)["refused"] == lost > 0


def test_it_stores_nothing(administrator):
    fleet()
    history(5)
    alias = ModelAlias.objects.get()

    def stored() -> Any:
        return list(ModelAlias.objects.values()), Revision.objects.get().number, LogEntry.objects.count()

    before = stored()
    shows(administrator, administrator.post("/rules/preview/alias/", {**FORM, "name": "new"}))
    shows(administrator, administrator.post(f"/rules/preview/alias/{alias.pk}/", {**FORM, "targets": "qwen3"}))
    shows(administrator, administrator.post(f"/rules/preview/alias/{alias.pk}/delete/"))

    assert stored() == before


def test_it_tells_what_is_wrong_with_a_form(administrator):
    fleet()
    response = administrator.post("/rules/preview/alias/", {"name": "FAST", "targets": " \n "})

    assert response.status_code == 422
    assert "Targets: This field is required." in response.content.decode()
    taken = administrator.post("/rules/preview/alias/", {**FORM, "name": "FAST"})
    assert "There is an alias of this name already" in taken.content.decode()
    assert administrator.post("/rules/preview/alias/", {}).status_code == 422
    assert administrator.post("/rules/preview/alias/999/", FORM).status_code == 404
    assert administrator.post("/rules/preview/alias/999/delete/").status_code == 409
    assert administrator.get("/rules/preview/alias/1/delete/").status_code == 405


def test_it_judges_again_and_says_when_the_alias_is_gone(administrator):
    fleet()
    history(5)
    alias = ModelAlias.objects.get()
    page = administrator.post(f"/rules/preview/alias/{alias.pk}/delete/").headers["Location"]

    shows(administrator, administrator.post(f"{page}again/", {"size": "100"}))
    alias.delete()

    gone = administrator.post(f"{page}again/", {"size": "100"})
    assert (gone.status_code, "not there any more" in gone.content.decode()) == (409, True)


def test_it_shows_warnings_and_hostile_names_inert(administrator):
    fleet()
    evil = "<script>alert(1)</script>"
    said = administrator.post("/rules/preview/alias/", {**FORM, "name": evil, "targets": evil}, follow=True)

    assert evil not in said.content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in said.content.decode()


def test_it_takes_a_form_of_those_alone_who_may_save_it(sign_in):
    group = Group.objects.get(name="Administrators")
    client = sign_in("Administrators")
    group.permissions.remove(Permission.objects.get(codename="add_modelalias"))

    assert client.post("/rules/preview/alias/", FORM).status_code == 403
    assert sign_in("Operators").post("/rules/preview/alias/", FORM).status_code == 403


def test_it_offers_a_preview_in_the_form_and_in_the_list(administrator, viewer, django_user_model):
    fleet()
    alias = ModelAlias.objects.get()
    form = administrator.get(admin_page("change", alias.pk)).content.decode()

    # The Enter key presses the first button.
    assert 0 < form.index('name="_save"') < form.index(f'formaction="/rules/preview/alias/{alias.pk}/"')
    assert 'formaction="/rules/preview/alias/"' in administrator.get(admin_page("add")).content.decode()
    assert f"/rules/preview/alias/{alias.pk}/delete/" in administrator.get("/rules/").content.decode()
    assert "/rules/preview/" not in viewer.get("/rules/").content.decode()
    administrator.force_login(staff(django_user_model, "change_modelalias"))
    assert "/rules/preview/" not in administrator.get(admin_page("change", alias.pk)).content.decode()
