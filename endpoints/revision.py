"""The revision: one number that grows with every change of what people edit, in the same transaction.

Web processes look at it to notice that their snapshot is old. Rows that go because the row they belong to is
deleted need no count of their own: the delete that took them has counted. What sends no `save` (fixtures, the rows
between a rule and its endpoints) is counted by signals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models, transaction
from django.db.models import F
from django.db.models.signals import m2m_changed, post_save


class Revision(models.Model):
    """One row whose number grows with every change that routing must see."""

    number = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "revision"

    def __str__(self) -> str:
        return f"revision {self.number}"

    @classmethod
    def bump(cls) -> None:
        """Count one change. Call inside the transaction that makes it."""
        if not cls.objects.filter(pk=1).update(number=F("number") + 1):
            cls.objects.get_or_create(pk=1, defaults={"number": 1})


class RoutedQuerySet(models.QuerySet[Any]):
    """A query set whose bulk changes bump the revision too (they send no signals)."""

    def update(self, **values: Any) -> int:
        with transaction.atomic():
            count = super().update(**values)
            Revision.bump()
        return count

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic():
            made = super().bulk_create(objs, *args, **kwargs)
            Revision.bump()
        return made

    def bulk_update(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> int:
        with transaction.atomic():
            count = super().bulk_update(objs, *args, **kwargs)
            Revision.bump()
        return count

    def delete(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            result = super().delete()
            Revision.bump()
        return result

    # Django keeps it off managers by this mark, so that no `Endpoint.objects.delete()` empties a table.
    delete.queryset_only = True  # type: ignore[attr-defined]


def is_routed(row: object) -> bool:
    """Whether a row is of a table whose changes routing must see (`endpoints.models.RoutedModel`)."""
    return bool(getattr(row, "routing_sees_changes", False))


def _count_relation(*, instance: object, action: str, **_: object) -> None:
    """Endpoints were added to or taken from a rule, from either side."""
    if action.startswith("post_") and is_routed(instance):
        Revision.bump()


def _count_fixture(*, instance: object, raw: bool, **_: object) -> None:
    """`loaddata` stores rows without calling their `save`."""
    if raw and is_routed(instance):
        Revision.bump()


m2m_changed.connect(_count_relation, dispatch_uid="endpoints.revision.relation")
post_save.connect(_count_fixture, dispatch_uid="endpoints.revision.fixture")
