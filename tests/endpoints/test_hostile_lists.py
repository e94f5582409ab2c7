"""Huge and hostile model lists, through real sockets: a clear result, and never an error of our own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from endpoints.asking import ProbeTarget
from endpoints.probing import Discovery, DiscoveryError, discover_models
from endpoints.transport import Transport
from tests.fakes import Reply, ScriptedBackend, json_reply

ODD = ["org/m", "m:8b", "100%", "a b", "🦙-llama", "%2e%2e", "ünïcode"]


@pytest.fixture
async def door() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.aclose()


async def discover(reply: Reply, door: Transport, **columns: tuple[str, ...]) -> Discovery:
    async with ScriptedBackend({"/v1/models": reply, "*": Reply(404)}) as backend:
        target = ProbeTarget(name="e", url=backend.url, backend_type="openai-compatible", **columns)  # type: ignore[arg-type]
        return await discover_models(target, door, timeout=30)


async def test_it_takes_five_thousand_models(door: Transport) -> None:
    found = await discover(json_reply({"data": [{"id": f"org/m{number}"} for number in range(5000)]}), door)
    assert (len(found.models), found.note) == (5000, "")


async def test_it_says_what_it_left_out(door: Transport) -> None:
    entries = [{"id": "a"}, {"id": "a"}, {"id": None}, {"id": 7}, None, [], "x", {"id": "\x00"}, {"id": "b"}]
    found = await discover(json_reply({"data": entries}), door)
    assert [each.name for each in found.models] == ["a", "b"]
    assert found.note == "Left out of the list: 6 without a usable name and 1 repeated."


async def test_it_keeps_odd_names_as_they_are_and_filters_them(door: Transport) -> None:
    listing = json_reply({"data": [{"id": name} for name in ODD]})
    assert [each.name for each in (await discover(listing, door)).models] == ODD
    some = await discover(listing, door, include=("*m*", "🦙*"), exclude=("ORG/*",))
    assert [each.name for each in some.models] == ["m:8b", "🦙-llama"]


async def test_it_reads_no_fifty_megabytes(door: Transport) -> None:
    body = json.dumps({"data": [{"id": "m" * 400}] * 131_072}).encode()
    assert len(body) > 50 * 1024 * 1024
    with pytest.raises(DiscoveryError, match="larger than 10 MiB"):
        await discover(Reply(200, body=body), door)
