"""Finding and registering the inference servers of this machine."""

from __future__ import annotations

import argparse
import asyncio
import errno
import socket
import time
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from endpoints.local_servers import choose_name, find_servers, is_same_place, well_known_ports
from endpoints.management.commands.discover_local import parse_ports
from endpoints.models import Endpoint
from tests.fakes import Reply, ScriptedBackend, Silence, json_reply, refused_origin

OLLAMA = {
    "/": Reply(200),
    "/api/version": json_reply({"version": "0.9"}),
    "/api/tags": json_reply({"models": []}),
}
VLLM = {"/v1/models": json_reply({"data": [{"id": "m", "owned_by": "vllm"}]})}
WEBSITE = {"*": Reply(200, body=b"<html>hello</html>")}

database_test = pytest.mark.django_db(transaction=True)


async def run(*ports: int, **options: object) -> list[str]:
    def work() -> list[str]:
        output = StringIO()
        try:
            call_command("discover_local", ports=list(ports), stdout=output, **options)
        finally:
            connection.close()
        return output.getvalue().splitlines()

    return await asyncio.to_thread(work)


async def stored() -> list[tuple[str, str, str]]:
    def work() -> list[tuple[str, str, str]]:
        try:
            return list(Endpoint.objects.order_by("name").values_list("name", "url", "backend_type"))
        finally:
            connection.close()

    return await asyncio.to_thread(work)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        # Not for want of a free port, which other tests may have taken for a moment.
        return error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
    return True


@database_test
async def test_it_registers_what_answers_and_leaves_the_rest():
    async with ScriptedBackend(OLLAMA) as ollama, ScriptedBackend(VLLM) as vllm, ScriptedBackend(WEBSITE) as site:
        lines = await run(ollama.port, vllm.port, site.port)
    assert await stored() == [("ollama", ollama.url, "ollama"), ("vllm", vllm.url, "vllm")]
    assert sorted(lines) == [
        f"Ollama at {ollama.url} is now registered as ollama.",
        f"vLLM at {vllm.url} is now registered as vllm.",
    ]


@database_test
async def test_it_changes_nothing_the_second_time():
    async with ScriptedBackend(OLLAMA) as ollama:
        await run(ollama.port)
        lines = await run(ollama.port)
    assert lines == [f"Ollama at {ollama.url} is registered already, as ollama."]
    assert len(await stored()) == 1


@database_test
async def test_it_only_says_what_it_would_do():
    async with ScriptedBackend(OLLAMA) as ollama:
        lines = await run(ollama.port, dry_run=True)
    assert lines == [f"Ollama at {ollama.url} would be registered as ollama."]
    assert await stored() == []


@database_test
async def test_it_never_registers_this_server(settings):
    async with ScriptedBackend(OLLAMA) as ollama:
        settings.OLLA_PORT = ollama.port
        lines = await run(ollama.port)
    assert "No inference server found" in lines[0]
    assert not ollama.requests


@database_test
async def test_it_gives_two_servers_of_a_kind_two_names():
    async with ScriptedBackend(VLLM) as first, ScriptedBackend(VLLM) as second:
        await run(first.port, second.port)
    low, high = sorted([first, second], key=lambda each: each.port)
    assert [(name, url) for name, url, _ in await stored()] == [("vllm", low.url), (f"vllm-{high.port}", high.url)]


@database_test
async def test_it_says_that_nothing_was_found():
    with refused_origin() as origin:
        lines = await run(origin.port)
    assert lines == [f"No inference server found on this machine (ports {origin.port})."]


async def test_it_does_not_wait_for_a_silent_server():
    async with ScriptedBackend(Silence()) as silent, ScriptedBackend(VLLM) as vllm:
        began = time.monotonic()
        found = await find_servers([silent.port, vllm.port], seconds=5)
        assert time.monotonic() - began < 30
    assert [(server.port, server.kind) for server in found] == [(vllm.port, "vllm")]


async def test_it_finds_a_server_on_ipv6_loopback_alone():
    if not has_ipv6():
        with refused_origin() as origin:  # a machine without IPv6 is looked at all the same
            assert await find_servers([origin.port], seconds=5) == []
        return
    async with ScriptedBackend(VLLM, host="::1") as backend:
        found = await find_servers([backend.port], seconds=5)
    assert [server.url for server in found] == [f"http://[::1]:{backend.port}"]


def test_it_knows_the_ports_of_the_kinds():
    assert {11434, 1234, 8000, 8001, 13305, 30000, 4000, 8080, 23333, 12434} <= set(well_known_ports())


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://localhost:8000", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000", True),
        ("http://0.0.0.0:8000", True),
        ("http://127.0.0.1:8001", False),
        ("http://gpu-1:8000", False),
        ("nonsense", False),
    ],
)
def test_it_knows_other_spellings_of_this_machine(url, same):
    assert is_same_place(url, 8000) is same


def test_it_chooses_names_nobody_has():
    assert choose_name("vllm", 8000, ()) == "vllm"
    assert choose_name("vllm", 8000, {"vllm"}) == "vllm-8000"
    assert choose_name("vllm", 8000, {"vllm", "vllm-8000"}) == "vllm-8000-2"


def test_it_reads_ports():
    assert parse_ports("1, 65535") == [1, 65535]
    for text in ("", "a", "0", "65536"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_ports(text)
