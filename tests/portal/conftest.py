"""Fixtures of the portal's tests."""

from __future__ import annotations

import pytest
from django.core.cache import caches


@pytest.fixture(autouse=True)
def fresh_counters():
    """Logins of one test do not count in another."""
    caches["counters"].clear()
