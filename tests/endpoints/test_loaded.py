"""What is in memory: told by each kind in its own way, looked at in bounds, written when it is news."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from endpoints.asking import ProbeTarget
from endpoints.listed import ListedModel
from endpoints.loaded import READERS, InMemory, is_cold, mark_loaded, read_loaded
from endpoints.memory_watch import REPEATED_AFTER, MemoryWatch
from endpoints.models import DiscoveredModel, Endpoint, Revision
from endpoints.profile import LoadedSource
from endpoints.profiles import PROFILES
from endpoints.recording import add_missing_rows, build_job, record_loaded, watched
from endpoints.records import build_record
from endpoints.transport import Transport
from tests.fakes import Reply, ScriptedBackend, json_reply

OLLAMA, LM_STUDIO, LLAMACPP = LoadedSource.OLLAMA, LoadedSource.LM_STUDIO, LoadedSource.LLAMACPP
LEMONADE, OMLX, DOCKER = LoadedSource.LEMONADE, LoadedSource.OMLX, LoadedSource.DOCKER_MODEL_RUNNER


def test_it_has_a_reader_for_every_source_and_a_kind_for_every_reader() -> None:
    assert set(READERS) == set(LoadedSource) == {each.loaded_at for each in PROFILES.values()} - {None}


def test_a_kind_that_loads_on_demand_may_take_long_to_its_first_byte() -> None:
    times = {each.first_byte_timeout: each.loaded_at is not None for each in PROFILES.values()}
    assert times == {300.0: False, 900.0: True}


@pytest.mark.parametrize(
    ("source", "document", "names"),
    [
        (OLLAMA, {"models": [{"model": "a:latest"}, {"name": "b:8b"}, 7]}, {"a", "b:8b"}),
        (OLLAMA, {"models": []}, set()),
        (OLLAMA, {"models": None}, None), (OLLAMA, [], None),
        (LM_STUDIO, {"data": [{"id": "a", "state": "loaded"}, {"id": "b", "state": "not-loaded"}]}, {"a"}),
        (LM_STUDIO, {"data": [{"id": "a", "state": "not-loaded"}]}, set()),
        (LM_STUDIO, {"data": [{"id": "a"}]}, None),
        (LLAMACPP, {"data": [{"id": "a", "status": {"value": "loaded"}},
                             {"id": "b", "status": {"value": "unloaded"}}]}, {"a"}),
        (LLAMACPP, {"data": [{"id": "only.gguf", "owned_by": "llamacpp"}]}, None),
        (LEMONADE, {"model_loaded": "a", "all_models_loaded": [{"model_name": "b"}]}, {"a", "b"}),
        (LEMONADE, {"model_loaded": None}, set()), (LEMONADE, {"status": "ok"}, None),
        (OMLX, {"models": [{"id": "a", "loaded": True}, {"id": "b", "loaded": False}]}, {"a"}),
        (OMLX, {"models": [{"id": "a", "loaded": "yes"}]}, None),
        (DOCKER, [{"model_name": "docker.io/ai/a:latest"}, {"model_name": "ai/b", "loading": True}], {"ai/a"}),
        (DOCKER, [], set()), (DOCKER, {}, None),
    ],
)  # fmt: skip
def test_it_reads_what_each_kind_has_in_memory(
    source: LoadedSource, document: Any, names: set[str] | None
) -> None:
    loaded = read_loaded(source, document)
    assert (None if loaded is None else set(loaded)) == names


def test_it_reads_how_long_ollama_keeps_a_model_and_what_it_takes() -> None:
    entry = {"model": "a", "size_vram": 5, "expires_at": "2026-05-04T18:38:31Z", "context_length": 4096}
    assert read_loaded(OLLAMA, {"models": [entry]}) == {"a": InMemory(5, 1777919911.0, 4096)}


def test_it_marks_models_by_name_without_tag_and_by_digest() -> None:
    models = (ListedModel("a:latest"), ListedModel("b", digest="SHA256:77", state="loaded"),
              ListedModel("c", state="loaded"), ListedModel("d", state="available"))  # fmt: skip
    marked = mark_loaded(models, {"a": InMemory(5), "sha256:77": InMemory()})
    assert [each.state for each in marked] == ["loaded", "loaded", "not-loaded", "available"]
    assert [each.memory_bytes for each in marked] == [5, None, None, None]
    assert [is_cold(each) for each in marked] == [False, False, True, True]


keys = st.sampled_from(
    ["models", "data", "id", "name", "model", "state", "status", "value", "loaded", "model_loaded",
     "all_models_loaded", "model_name", "size_vram", "expires_at"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "loaded", "x" * 999, "\ud800", ""])
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=12
)


@given(st.sampled_from(list(LoadedSource)), documents)
def test_it_takes_any_answer(source: LoadedSource, document: Any) -> None:
    loaded = read_loaded(source, document)
    if loaded is not None:
        assert len(mark_loaded([ListedModel("a")], loaded)) == 1


@pytest.fixture
async def door() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.aclose()


async def test_it_looks_at_intervals_and_tells_news_only(door: Transport) -> None:
    a, b = json_reply({"models": [{"model": "a"}]}), json_reply({"models": [{"model": "b"}]})
    watch, told = MemoryWatch(), []
    async with ScriptedBackend({"/api/ps": [a, a, b, b, Reply(500)]}) as backend:
        target = ProbeTarget(name="e", url=backend.url, backend_type="ollama")
        for now in (0, 1, 20, 40, 60 + REPEATED_AFTER, 90 + REPEATED_AFTER):
            found = await watch.look(7, target, door, now)
            told.append(None if found is None else set(found))
    assert told == [{"a"}, None, None, {"b"}, {"b"}, None]
    assert len(backend.requests) == 5


async def test_it_never_asks_a_kind_that_keeps_its_models_in_memory(door: Transport) -> None:
    async with ScriptedBackend(Reply(200)) as backend:
        target = ProbeTarget(name="e", url=backend.url, backend_type="vllm")
        assert await MemoryWatch().look(7, target, door, 0) is None
    assert backend.requests == []


@pytest.mark.django_db
def test_it_writes_states_and_tells_routing_when_one_changed() -> None:
    endpoint = Endpoint.objects.create(name="a", url="http://127.0.0.1:1", backend_type="ollama")
    add_missing_rows()
    for name, state in (("x:latest", "not-loaded"), ("Y", "loaded"), ("z", "not-loaded")):
        DiscoveredModel.objects.create(endpoint=endpoint, name=name, state=state)
    job = build_job(watched().get(pk=endpoint.pk), {})
    before = Revision.objects.get().number
    assert record_loaded(job, {"x": InMemory(5, time.time())})
    assert dict(DiscoveredModel.objects.values_list("name", "state")) == {
        "x:latest": "loaded", "Y": "not-loaded", "z": "not-loaded",
    }  # fmt: skip
    assert Revision.objects.get().number == before + 1
    assert not record_loaded(job, {"x": InMemory(5, time.time() + 60)})
    assert Revision.objects.get().number == before + 1
    Endpoint.objects.filter(pk=endpoint.pk).update(url="http://127.0.0.1:2")  # queryset updates count as edits
    endpoint.save()
    assert not record_loaded(job, {})


@pytest.mark.django_db(transaction=True)
async def test_it_takes_the_timeout_of_the_setting_before_the_kinds() -> None:
    @sync_to_async
    def first_byte(kind: str, own: float | None = None) -> float:
        Endpoint.objects.all().delete()
        endpoint = Endpoint.objects.create(
            name="a", url="http://127.0.0.1:1", backend_type=kind, first_byte_timeout=own
        )
        return build_record(endpoint, (), {}).limits.first_byte

    assert [await first_byte("ollama"), await first_byte("vllm"), await first_byte("ollama", 5)] == [900, 300, 5]
    with override_settings(OLLA_FIRST_BYTE_TIMEOUT=60):
        assert [await first_byte("ollama"), await first_byte("vllm", 7)] == [60, 7]
