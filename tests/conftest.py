"""Fixtures shared by all tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def long_form() -> bool:
    """Whether the larger sizes run (`make test-long`)."""
    return os.environ.get("OLLA_TEST_SIZE") == "long"
