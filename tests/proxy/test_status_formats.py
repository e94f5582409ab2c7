"""How the status routes write numbers, times, ids and verdicts."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.health import Status
from endpoints.quantities import write_size
from proxy.fnv import base36, fnv1a_32
from proxy.status import formats
from proxy.status.public_ids import UNPARSEABLE, id_of_url, public_ids, shown_url
from proxy.status.verdicts import EndpointSigns, judge_security, judge_system, list_issues, name_issue
from tests.proxy.builders import make_endpoint

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "0%"), (10, 10, "100%"), (967, 1000, "96.7%"), (9996, 10_000, "100.0%"), (4, 10_000, "0.0%"),
        (1, 3, "33.3%"), (0, 0, "N/A"),
    ],
)  # fmt: skip
def test_it_writes_percentages(part, whole, text):
    assert formats.percent(part, whole) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KB"), (1536, "1.50 KB"), (1024**3 * 1.2, "1.20 GB"),
        (1024**5, "1.00 PB"), (1024**6, "1024.00 PB"),
    ],
)  # fmt: skip
def test_it_writes_sizes(count, text):
    assert write_size(count) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0ms"), (0.9, "0ms"), (7, "7ms"), (245.9, "245ms"), (1000, "1.0s"), (1240, "1.2s")]
)
def test_it_writes_latencies(value, text):
    assert formats.latency(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.0029, "2.9ms"), (0.25, "250ms"), (0.00045, "450µs"), (45, "45s"), (303, "5m3s"),
        (51 * 3600 + 129, "51h2m9s"), (3600, "1h0m0s"),
    ],
)  # fmt: skip
def test_it_writes_long_durations(seconds, text):
    assert formats.long_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (42, "42s"), (59.6, "60s"), (60, "1m"), (17 * 60 + 29, "17m"), (3599, "60m"), (9000, "2h 30m"),
        (76 * 3600, "3d 4h"),
    ],
)  # fmt: skip
def test_it_writes_short_durations(seconds, text):
    assert formats.short_duration(seconds) == text


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (0, "0s ago"), (2.9, "2s ago"), (59.9, "59s ago"), (300, "5m ago"), (3 * 3600, "3h ago"),
        (5 * 86400, "5d ago"), (-3, "0s ago"),
    ],
)  # fmt: skip
def test_it_writes_how_long_ago(age, text):
    assert formats.ago(NOW - age, NOW) == text


def test_it_says_when_something_never_was():
    assert (formats.ago(None, NOW), formats.until(None, NOW)) == ("never", "unknown")


@pytest.mark.parametrize(("wait", "text"), [(3.4, "in 3s"), (0, "now"), (-5, "now"), (125, "in 2m")])
def test_it_writes_how_long_until(wait, text):
    assert formats.until(NOW + wait, NOW) == text


@given(st.floats(min_value=0, max_value=4e9))
def test_it_writes_times_that_parse_back(moment):
    read = datetime.fromisoformat(formats.stamp(moment))
    assert read.tzinfo is not None
    assert abs(read.timestamp() - moment) < 1e-5


def test_it_writes_no_digits_a_time_has_not():
    assert formats.stamp(1_776_213_000.0) == "2026-04-15T00:30:00Z"
    assert formats.stamp(1_776_213_000.5) == "2026-04-15T00:30:00.5Z"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://localhost:11434", "1gi2muj"),
        ("http://localhost:1234", "13vqsvy"),
        ("http://127.0.0.1:8000/v1", "882zwe"),
        (UNPARSEABLE, "c9l5z0"),
    ],
)
def test_it_makes_the_ids_dashboards_know(url, name):
    assert id_of_url(url) == name


def test_it_writes_numbers_in_base_36():
    assert [base36(number) for number in (0, 35, 36, 2**64 - 1)] == ["0", "z", "10", "3w5e11264sgsf"]
    assert fnv1a_32(b"foobar") == 0xBF9CF968


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass@gpu:1/v1?key=s#x", "http://gpu:1/v1"), ("http://gpu/", "http://gpu/"), ("", ""),
        ("http://gpu:port/", UNPARSEABLE), ("gpu:1", UNPARSEABLE), ("http://[::1", UNPARSEABLE),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)  # fmt: skip
def test_it_shows_no_credentials_in_urls(url, shown):
    assert shown_url(url) == shown


def test_it_numbers_endpoints_that_share_an_address_by_name():
    url = "http://localhost:11434"
    fleet = [
        make_endpoint("b", url=url, id=1),
        make_endpoint("a", url=url, id=2),
        make_endpoint("c", url="http://localhost:1234", id=3),
    ]
    assert public_ids(fleet) == {2: "1gi2muj-0", 1: "1gi2muj-1", 3: "13vqsvy"}


@pytest.mark.parametrize(
    ("healthy", "total", "success", "verdict"),
    [
        (0, 0, None, "critical"), (4, 5, None, "healthy"), (3, 4, None, "degraded"), (1, 2, None, "degraded"),
        (1, 3, None, "critical"), (5, 5, 0.95, "healthy"), (5, 5, 0.949, "degraded"), (5, 5, 0.899, "critical"),
        (3, 4, 1.0, "degraded"), (1, 3, 1.0, "critical"),
    ],
)  # fmt: skip
def test_it_judges_the_installation(healthy, total, success, verdict):
    assert judge_system(healthy, total, success).value == verdict


def test_it_judges_refusals():
    assert [judge_security(100, 10), judge_security(101, 0), judge_security(0, 11)] == [
        "normal", "elevated", "elevated",
    ]  # fmt: skip


def signs(status=Status.HEALTHY, failed_probes=0, requests=0, success=None, mean_latency=None):
    return EndpointSigns(status, failed_probes, requests, success, mean_latency)


@pytest.mark.parametrize(
    ("found", "issues", "issue"),
    [
        (signs(), [], ""),
        (signs(Status.OFFLINE, 4), ["consecutive failures", "unavailable"], "unavailable"),
        (signs(Status.UNHEALTHY, 1), ["unavailable"], "unavailable"),
        (signs(Status.CONFIG_ERROR, 4), ["consecutive failures"], "unstable"),
        (signs(requests=11, success=0.89), ["low success rate"], "low success rate"),
        (signs(requests=10, success=0.1), [], ""),
        (signs(requests=50, success=1.0, mean_latency=5001), ["high latency"], ""),
    ],
)
def test_it_names_what_is_the_matter_with_an_endpoint(found, issues, issue):
    assert (list_issues(found), name_issue(found)) == (issues, issue)
