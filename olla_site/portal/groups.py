"""The groups an installation starts with, made by the portal's first migration."""

from __future__ import annotations

from typing import Any

from olla_site.portal.access import Right

GROUPS: dict[str, tuple[Right, ...]] = {
    "Viewers": (Right.VIEW,),
    "Users": (Right.VIEW, Right.TRY),
    "Operators": (Right.VIEW, Right.TRY, Right.OPERATE),
    "Administrators": tuple(Right),
}
# Tables whose rows administrators edit in the admin; what machines write there can only be looked at.
EDITED = ("endpoint", "modelalias", "routingrule", "rulecondition")
ADMINISTRATORS = "Administrators"


def make_groups(group_table: Any, permission_table: Any) -> None:
    """Make the groups that are missing; one that is there keeps what somebody gave it."""
    for name, rights in GROUPS.items():
        group, made = group_table.objects.get_or_create(name=name)
        if not made:
            continue
        group.permissions.add(*_portal_permissions(permission_table, rights))
        if name == ADMINISTRATORS:
            group.permissions.add(*_table_permissions(permission_table))


def _portal_permissions(table: Any, rights: tuple[Right, ...]) -> list[Any]:
    names = [str(right) for right in rights]
    return list(table.objects.filter(content_type__app_label="portal", codename__in=names))


def _table_permissions(table: Any) -> list[Any]:
    edited = table.objects.filter(content_type__app_label="endpoints", content_type__model__in=EDITED)
    looked_at = table.objects.filter(content_type__app_label="endpoints", codename__startswith="view_")
    return [*edited, *looked_at]
