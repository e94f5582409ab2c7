"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.canaries import watch

# A busy machine must not fail a property; `make test-long` looks twenty times as hard.
settings.register_profile("short", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("short"), max_examples=2000)
settings.load_profile("long" if os.environ.get("OLLA_TEST_SIZE") == "long" else "short")


@pytest.fixture(scope="session")
def long_form() -> bool:
    """Whether the larger sizes run (`make test-long`)."""
    return os.environ.get("OLLA_TEST_SIZE") == "long"


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Nothing that other tests left is looked through by the collector, as `serve` has it once it has started.

    For tests that measure: one such look takes longer than most of what they measure.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# Files of these folders run first, dearest first: workers that take file after file then end at about one time.
_DEAR = ("browser", "e2e", "demo", "server", "portal", "endpoints")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put dear folders first; within them the order stays as chance made it."""
    places = {name: place for place, name in enumerate(_DEAR)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Look through all log output of the run for planted secrets."""
    watch.install()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when one was seen."""
    if not watch.is_installed():
        watch.seen.append("The watch was taken out of the loggers: nothing is proven.")
    if watch.seen:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where."""
    if watch.seen:
        terminalreporter.section("secrets in log output", red=True)
        for line in watch.seen:
            terminalreporter.write_line(line)
