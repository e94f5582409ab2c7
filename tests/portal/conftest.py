"""Fixtures of the portal's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.cache import caches
from django.test import Client

from endpoints import loading
from olla_site.portal.groups import make_groups


@pytest.fixture(autouse=True)
def fresh_counters():
    """Logins of one test do not count in another."""
    caches["counters"].clear()


@pytest.fixture(autouse=True)
def no_snapshot():
    """The snapshot of one test is not seen by another."""
    loading.forget()
    yield
    loading.forget()


@pytest.fixture
def sign_in(db: None, django_user_model: Any) -> Callable[..., Client]:
    """A client signed in as a new member of a group; without a group as somebody who has no rights."""
    # A test that empties all tables takes the groups of the migration with them.
    make_groups(Group, Permission)

    def make(group: str = "", **values: Any) -> Client:
        user = django_user_model.objects.create_user(f"member-of-{group or 'nothing'}", **values)
        if group:
            user.groups.add(Group.objects.get(name=group))
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def viewer(sign_in: Callable[..., Client]) -> Client:
    """Somebody who may look."""
    return sign_in("Viewers")


@pytest.fixture
def operator(sign_in: Callable[..., Client]) -> Client:
    """Somebody who may drain and probe."""
    return sign_in("Operators")


@pytest.fixture
def administrator(sign_in: Callable[..., Client]) -> Client:
    """Somebody who may do everything, admin included."""
    return sign_in("Administrators", is_staff=True)
