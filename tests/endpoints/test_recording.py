"""What the prober reads from the tables and writes to them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from endpoints.durations import PROBE, Durations, parse_durations
from endpoints.health import Outcome, ProbeResult, Status
from endpoints.health_facts import read_durations
from endpoints.lease import LASTS, Lease
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, ProberLease, Revision
from endpoints.probing import Discovery
from endpoints.recording import (
    Job,
    Slots,
    Work,
    add_missing_rows,
    build_job,
    find_work,
    record_models,
    record_no_models,
    record_probe,
    watched,
)
from endpoints.secrets import Secret
from endpoints.snapshot import ListedModel

pytestmark = pytest.mark.django_db

WELL = ProbeResult(Outcome.ANSWERED, status_code=200, latency_ms=4.0)
REFUSED = ProbeResult(Outcome.UNREACHABLE, error="refused")
SLOTS = Slots(probes=10, discoveries=10)


def make(name="a", **values) -> Endpoint:
    values = {"url": "http://127.0.0.1:1", "backend_type": "vllm", **values}
    endpoint = Endpoint.objects.create(name=name, **values)
    add_missing_rows()
    return endpoint


def job_of(endpoint: Endpoint) -> Job:
    return build_job(watched().get(pk=endpoint.pk), {})


def health_of(endpoint: Endpoint) -> EndpointHealth:
    return EndpointHealth.objects.get(pk=endpoint.pk)


def revision() -> int:
    return Revision.objects.values_list("number", flat=True).first() or 0


def probed(endpoint: Endpoint, result: ProbeResult = WELL) -> None:
    now = time.time()
    assert record_probe(job_of(endpoint), result, now, now)


def due(slots: Slots = SLOTS) -> tuple[list[str], list[str]]:
    work: Work = find_work(time.time(), slots, {})
    return [job.target.name for job in work.probes], [job.target.name for job in work.discoveries]


def models(*names: str) -> Discovery:
    return Discovery(tuple(ListedModel(name=name) for name in names))


def names_of(endpoint: Endpoint) -> set[str]:
    return set(DiscoveredModel.objects.filter(endpoint=endpoint).values_list("name", flat=True))


# -- probes


def test_it_stores_a_status_and_bumps_the_revision_once():
    endpoint = make()
    before = revision()
    probed(endpoint)
    health = health_of(endpoint)
    assert (health.status, health.latency_ms, health.last_error, health.version) == ("healthy", 4.0, "", 1)
    assert revision() == before + 1


def test_it_does_not_bump_the_revision_for_latency():
    endpoint = make()
    probed(endpoint)
    before = revision()
    probed(endpoint)
    probed(endpoint)
    assert (revision(), health_of(endpoint).version) == (before, 3)


def test_it_drops_a_result_when_the_row_changed_meanwhile():
    endpoint = make()
    job = job_of(endpoint)
    probed(endpoint, REFUSED)
    assert record_probe(job, WELL, time.time(), time.time()) is None
    assert health_of(endpoint).status == "offline"


def test_it_drops_a_result_of_an_address_that_was_edited():
    endpoint = make()
    probed(endpoint)
    job = job_of(endpoint)
    endpoint.url = "http://127.0.0.1:2"
    endpoint.save()
    assert record_probe(job, REFUSED, time.time(), time.time()) is None
    assert not record_models(job, models("old"), time.time(), time.time() + 300)
    assert not record_no_models(job, "old", time.time(), time.time() + 300)
    assert (health_of(endpoint).status, health_of(endpoint).models_error, names_of(endpoint)) == (
        "healthy", "", set(),
    )  # fmt: skip
    assert due() == (["a"], [])


def test_it_drops_a_result_of_an_endpoint_that_is_gone():
    endpoint = make()
    job = job_of(endpoint)
    endpoint.delete()
    assert record_probe(job, WELL, time.time(), time.time()) is None
    assert not record_models(job, models("m"), time.time(), time.time() + 300)


def test_it_stores_the_detected_type():
    endpoint = make(backend_type="auto")
    assert job_of(endpoint).detect
    before = revision()
    probed(endpoint, ProbeResult(Outcome.ANSWERED, status_code=200, detected_type="ollama"))
    assert (health_of(endpoint).detected_type, revision()) == ("ollama", before + 1)
    job = job_of(endpoint)
    assert not job.detect
    assert job.target.profile.name == "ollama"


def test_it_keeps_the_detected_type_when_nothing_is_detected():
    endpoint = make(backend_type="auto")
    EndpointHealth.objects.filter(pk=endpoint.pk).update(detected_type="ollama")
    probed(endpoint)
    assert health_of(endpoint).detected_type == "ollama"


def test_it_shortens_a_long_error():
    endpoint = make()
    probed(endpoint, ProbeResult(Outcome.UNREACHABLE, error="x" * 900))
    assert len(health_of(endpoint).last_error) == 500


def test_it_logs_transitions_with_their_reason(caplog):
    endpoint = make()
    caplog.set_level("INFO", "endpoints")
    probed(endpoint)
    probed(endpoint)
    probed(endpoint, REFUSED)
    assert caplog.messages == ["endpoint a: unknown -> healthy", "endpoint a: healthy -> offline: refused"]


# -- what is due


def test_it_finds_new_endpoints_and_gives_them_a_row():
    Endpoint.objects.create(name="new", url="http://127.0.0.1:1")
    assert due() == (["new"], [])
    assert EndpointHealth.objects.count() == 1


def test_it_leaves_an_endpoint_without_a_row_for_the_next_look():
    make("first")
    Endpoint.objects.create(name="second", url="http://127.0.0.1:1")  # after the missing rows were added
    assert [endpoint.name for endpoint in watched()] == ["first"]


def test_it_finds_models_to_read_after_recovery_only():
    endpoint = make()
    probed(endpoint, REFUSED)
    assert due() == ([], [])
    probed(endpoint)
    assert due() == ([], ["a"])
    record_models(job_of(endpoint), models("m"), time.time(), time.time() + 300)
    assert due() == ([], [])
    probed(endpoint)
    assert due() == ([], [])


def test_it_finds_an_edited_endpoint_whatever_was_planned():
    endpoint = make()
    probed(endpoint)
    record_models(job_of(endpoint), models("m"), time.time(), time.time() + 300)
    EndpointHealth.objects.update(next_check=timezone.now() + timedelta(hours=1))
    assert due() == ([], [])
    endpoint.save()
    assert due() == (["a"], [])
    probed(endpoint)
    assert due() == (["a"][:0], ["a"])


def test_it_is_not_driven_in_circles_by_a_clock_that_is_ahead():
    endpoint = make()
    probed(endpoint)
    record_models(job_of(endpoint), models("m"), time.time(), time.time() + 300)
    Endpoint.objects.filter(pk=endpoint.pk).update(updated_at=timezone.now() + timedelta(minutes=1))
    assert due() == ([], [])


@pytest.mark.parametrize(
    ("state", "found"), [("active", ["a"]), ("draining", ["a"]), ("maintenance", ["a"]), ("disabled", [])]
)
def test_it_probes_all_but_disabled_endpoints(state, found):
    make(state=state)
    assert due() == (found, [])


def test_it_leaves_out_what_is_being_asked_and_keeps_to_the_slots():
    first, second, third = (make(name) for name in "abc")
    assert due(Slots(10, 10, probing={first.pk})) == (["b", "c"], [])
    assert due(Slots(2, 10)) == (["a", "b"], [])
    assert due(Slots(0, 0)) == ([], [])
    for endpoint in (second, third):
        probed(endpoint)
    assert due(Slots(0, 10, discovering={second.pk})) == ([], ["c"])


def test_it_says_when_the_next_is_due():
    endpoint = make(check_interval=7.0)
    assert find_work(time.time(), SLOTS, {}).next_due is None
    probed(endpoint)
    record_models(job_of(endpoint), models("m"), time.time(), time.time() + 300)
    next_due = find_work(time.time(), SLOTS, {}).next_due
    assert next_due == health_of(endpoint).next_check.timestamp()


def test_it_counts_queries_not_endpoints(django_assert_max_num_queries):
    for number in range(20):
        make(f"e{number:02}")
    with django_assert_max_num_queries(6):
        assert len(due(Slots(20, 20))[0]) == 20


def test_it_asks_with_expanded_credentials():
    endpoint = make(auth_type="bearer", auth_secret="${OLLA_BACKEND_KEY}", model_include="a*\nb*")
    job = build_job(watched().get(pk=endpoint.pk), {"OLLA_BACKEND_KEY": "k"})
    assert job.target.headers == ((b"Authorization", Secret("Bearer k")),)
    assert job.target.include == ("a*", "b*")


@pytest.mark.parametrize(
    "values", [{"auth_type": "bearer", "auth_secret": "${OLLA_BACKEND_KEY}"}, {"url": "nonsense"}]
)
def test_it_names_what_keeps_an_endpoint_from_being_asked(values):
    assert job_of(make(**values)).target.problem


# -- models


def test_it_replaces_the_models():
    endpoint = make()
    probed(endpoint)
    assert record_models(job_of(endpoint), models("a", "b"), time.time(), time.time() + 300)
    changed = Discovery((ListedModel(name="b", context_length=5), ListedModel(name="c", capabilities=("tools",))))
    before = revision()
    assert record_models(job_of(endpoint), changed, time.time(), time.time() + 300)
    assert names_of(endpoint) == {"b", "c"}
    assert DiscoveredModel.objects.get(name="b").context_length == 5
    assert DiscoveredModel.objects.get(name="c").capabilities == ["tools"]
    assert revision() == before + 1


def test_it_does_not_bump_the_revision_for_the_same_models():
    endpoint = make()
    probed(endpoint)
    first = Discovery((ListedModel(name="m", modified_at=1000.5, capabilities=("vision",)),))
    later = Discovery((ListedModel(name="m", modified_at=2000.0, capabilities=("vision",)),))
    record_models(job_of(endpoint), first, time.time(), time.time() + 300)
    before, row = revision(), DiscoveredModel.objects.get()
    record_models(job_of(endpoint), first, time.time(), time.time() + 300)
    record_models(job_of(endpoint), later, time.time(), time.time() + 300)
    assert (revision(), DiscoveredModel.objects.get().pk) == (before, row.pk)
    assert DiscoveredModel.objects.values_list("modified_at", flat=True).get() == datetime.fromtimestamp(2000, UTC)


def test_it_keeps_the_last_models_when_a_discovery_fails(caplog):
    endpoint = make()
    probed(endpoint)
    record_models(job_of(endpoint), models("m"), time.time(), time.time() + 300)
    before = revision()
    for _ in range(3):
        assert record_no_models(job_of(endpoint), "HTTP 500", time.time(), time.time() + 10)
    assert (names_of(endpoint), health_of(endpoint).models_error, revision()) == ({"m"}, "HTTP 500", before)
    assert len([text for text in caplog.messages if "HTTP 500" in text]) == 1
    record_models(job_of(endpoint), models("m"), time.time(), time.time() + 300)
    assert health_of(endpoint).models_error == ""


def test_it_stores_the_type_a_discovery_found():
    endpoint = make(backend_type="auto")
    EndpointHealth.objects.filter(pk=endpoint.pk).update(detected_type="ollama", status="healthy")
    before = revision()
    assert record_models(job_of(endpoint), Discovery((), "vllm"), time.time(), time.time() + 300)
    assert (health_of(endpoint).detected_type, revision()) == ("vllm", before + 1)


def test_it_drops_a_list_when_another_was_asked_for_meanwhile():
    endpoint = make()
    probed(endpoint)
    job = job_of(endpoint)
    EndpointHealth.objects.filter(pk=endpoint.pk).update(next_discovery=timezone.now())
    assert not record_models(job, models("m"), time.time(), time.time() + 300)
    assert due() == ([], ["a"])


def test_it_writes_models_beside_a_probe():
    endpoint = make()
    probed(endpoint)
    job = job_of(endpoint)
    probed(endpoint)
    assert record_models(job, models("m"), time.time(), time.time() + 300)


def test_it_writes_more_models_than_fit_one_statement():
    endpoint = make()
    probed(endpoint)
    record_models(job_of(endpoint), models(*(f"a{n}" for n in range(1500))), time.time(), time.time() + 300)
    record_models(job_of(endpoint), models(*(f"b{n}" for n in range(1500))), time.time(), time.time() + 300)
    assert DiscoveredModel.objects.count() == 1500


# -- the lease

NOW = 2_000_000_000.0


def test_it_gives_the_lease_to_one():
    first, second = Lease("first"), Lease("second")
    assert first.hold(NOW)
    assert not second.hold(NOW)
    assert first.hold(NOW + 3)
    assert not second.hold(NOW + 3 + LASTS - 0.1)
    assert ProberLease.objects.get().holder == "first"


def test_it_hands_a_lease_over_that_ran_out():
    first, second = Lease("first"), Lease("second")
    first.hold(NOW)
    assert second.hold(NOW + LASTS)
    assert not first.hold(NOW + LASTS)


def test_it_hands_a_released_lease_over_at_once():
    first, second = Lease("first"), Lease("second")
    first.hold(NOW)
    first.release(NOW + 1)
    assert second.hold(NOW + 1)


def test_it_releases_no_lease_of_others():
    first, second = Lease("first"), Lease("second")
    first.hold(NOW)
    second.hold(NOW + 100)
    first.release(NOW + 101)
    assert not first.hold(NOW + 101)
    assert ProberLease.objects.get().expires_at.timestamp() == NOW + 100 + LASTS


def test_it_shows_a_sign_of_life_every_two_seconds():
    lease = Lease("first")
    lease.hold(NOW)
    for later, seen in ((1.9, NOW), (2.0, NOW + 2.0), (3.0, NOW + 2.0)):
        assert lease.hold(NOW + later)
        assert ProberLease.objects.get().renewed_at.timestamp() == seen


def test_it_tells_with_each_sign_of_life_how_long_its_work_took():
    durations = Durations()
    lease = Lease("first", durations.write)
    lease.hold(NOW)
    durations.add(PROBE, "answered", 0.003)
    assert read_durations().of(PROBE) == {}
    lease.hold(NOW + 2)
    durations.add(PROBE, "timeout", 2.0)
    lease.hold(NOW + 4)
    told = read_durations().of(PROBE)
    assert {name: (each.count, each.total) for name, each in told.items()} == {
        "answered": (1, 0.003), "timeout": (1, 2.0),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "x", "[]", '{"probe":{"timeout":{"counts":[1],"total":1}}}', '{"probe":1}'])
def test_it_reads_no_durations_another_version_wrote(text):
    assert parse_durations(text).of(PROBE) == {}


def test_it_does_not_wait_for_a_clock_that_was_set_back():
    first, second = Lease("first"), Lease("second")
    first.hold(NOW)
    assert second.hold(NOW - 3600)


def test_it_names_each_holder_differently():
    assert Lease().holder != Lease().holder


def test_it_knows_all_statuses():
    """The column takes each of them."""
    assert all(len(status.value) <= 20 for status in Status)
