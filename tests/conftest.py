"""Fixtures shared by all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a property; `make test-long` looks twenty times as hard.
settings.register_profile("short", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("short"), max_examples=2000)
settings.load_profile("long" if os.environ.get("OLLA_TEST_SIZE") == "long" else "short")


@pytest.fixture(scope="session")
def long_form() -> bool:
    """Whether the larger sizes run (`make test-long`)."""
    return os.environ.get("OLLA_TEST_SIZE") == "long"
