"""How many examples the property tests draw: few in `make test`, many in `make test-long`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("OLLA_TEST_SIZE") == "long"

# Building long conversations is slow on a busy machine, which says nothing about the code under test.
sized = settings(max_examples=800 if LONG else 60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
