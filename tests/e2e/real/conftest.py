"""Real servers and clients, only with `make test-real`: they are large, and one of them is compiled.

LiteLLM is always driven. llama.cpp's server and the command-line clients are where they have been put; the first
lines of the output say what is left out and how to get it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import list_models, wait_until
from tests.e2e.real.clients import CLAUDE, OPENCODE
from tests.e2e.real.processes import LITELLM_KEY, LLAMA_SERVER, RealServer, start_litellm, start_llamacpp
from tests.e2e.real.register import register
from tests.live import LiveServer

_HAS_LLAMACPP = LLAMA_SERVER.exists()
_HAS_CLIENTS = CLAUDE.exists() and OPENCODE.exists()
_STARTS = {"litellm": start_litellm, **({"llamacpp": start_llamacpp} if _HAS_LLAMACPP else {})}

if not os.environ.get("OLLA_TEST_REAL"):
    collect_ignore_glob = ["test_*.py"]
else:
    _optional = {"test_llamacpp.py": _HAS_LLAMACPP, "test_clients.py": _HAS_CLIENTS}
    collect_ignore = [name for name, is_there in _optional.items() if not is_there]


def pytest_report_header() -> list[str]:
    """What is driven, and what is not there to be driven."""
    if not os.environ.get("OLLA_TEST_REAL"):
        return []
    lines = [f"real servers: {', '.join(_STARTS)}"]
    if not _HAS_LLAMACPP:
        lines.append("no llama-server: llama.cpp is left out. `make real-llamacpp` compiles it.")
    if not _HAS_CLIENTS:
        lines.append("no Claude Code and OpenCode: both are left out. `make real-clients` installs them.")
    return lines


@dataclass
class Fleet:
    """The product before all real servers."""

    server: LiveServer
    data_dir: Path
    real: dict[str, RealServer]

    @property
    def url(self) -> str:
        """The product's address."""
        return self.server.url

    def health(self, real: RealServer, column: str) -> Any:
        """What the prober noted of an endpoint."""
        with closing(sqlite3.connect(self.data_dir / "olla.sqlite3")) as database:
            statement = (
                f"SELECT {column} FROM endpoints_endpointhealth JOIN endpoints_endpoint "  # noqa: S608
                "ON endpoint_id = endpoints_endpoint.id WHERE name = ?"
            )
            [(value,)] = database.execute(statement, (real.name,)).fetchall()
            return value

    def told(self, request_id: str) -> dict[str, Any]:
        """The debug line of what a backend told of a request."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            lines = self.server.output().splitlines()
            mine = [each for each in lines if "proxy.metrics_log" in each and request_id in each]
            found.extend(json.loads(each[each.index("{") :]) for each in mine)
            return bool(found)

        wait_until(look)
        return {name.removeprefix("provider_"): value for name, value in found[0].items()}


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Every server, registered without a type, found out by the prober."""
    real: dict[str, RealServer] = {}
    env = {"REAL_LITELLM_API_KEY": LITELLM_KEY, "OLLA_LOG_LEVEL": "DEBUG"}
    try:
        for name, start in _STARTS.items():
            real[name] = start(tmp_path_factory.mktemp(name))
        data_dir = tmp_path_factory.mktemp("real-data")
        register(data_dir, [{"name": each.name, "url": each.url, **each.columns} for each in real.values()], env)
        with LiveServer(data_dir=data_dir, args=(), env=env) as server:
            fleet = Fleet(server, data_dir, real)
            wait_until(lambda: {each.model for each in real.values()} <= list_models(server.url), 120)
            # LiteLLM may take longer than a probe's timeout for its first answers; it is asked again then.
            wait_until(lambda: all(fleet.health(each, "detected_type") for each in real.values()), 120)
            yield fleet
    finally:
        for each in real.values():
            each.stop()


@pytest.fixture(params=list(_STARTS))
def real(request: pytest.FixtureRequest, fleet: Fleet) -> RealServer:
    """Each server in turn."""
    return fleet.real[request.param]
