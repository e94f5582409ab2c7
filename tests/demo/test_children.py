"""Demo backends as child processes."""

from __future__ import annotations

import httpx
import pytest

from olla_site.demo.children import ChildError, ChildPlan, DemoChild
from olla_site.management.commands.demo import build_text, list_models


@pytest.fixture
def child():
    started = DemoChild(ChildPlan("demo-ollama", "ollama", ("demo-llama:8b",)), delay=0.0)
    started.start()
    yield started
    started.stop()


def test_it_runs_a_backend_until_it_is_stopped(child):
    url = child.wait_for_url()
    assert httpx.get(f"{url}/api/version", trust_env=False, timeout=60).json() == {"version": "0.0.0-demo"}
    child.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/api/version", trust_env=False, timeout=60)


def test_it_says_when_a_backend_does_not_start(capfd):
    broken = DemoChild(ChildPlan("demo-none", "ollama", ()), delay=0.0)
    broken.start()
    with pytest.raises(ChildError, match="demo-none did not start"):
        broken.wait_for_url()
    broken.stop()
    assert "needs a model" in capfd.readouterr().err


def test_it_waits_for_nobody_that_was_not_started():
    with pytest.raises(ChildError, match="was not started"):
        DemoChild(ChildPlan("demo-none", "ollama", ()), delay=0.0).wait_for_url()


def test_it_prints_one_complete_command(child):
    lines = build_text("http://localhost:40114", [child]).splitlines()
    command = next(line for line in lines if line.startswith("curl"))
    assert command.startswith("curl -N http://localhost:40114/olla/openai/v1/chat/completions ")
    assert command.endswith("}'")
    assert str(child.pid) in build_text("", [child])


def test_it_lists_nothing_while_nobody_answers():
    assert list_models("http://127.0.0.1:9") == set()
