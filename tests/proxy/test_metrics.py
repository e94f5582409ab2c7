"""`/internal/metrics`: what a scraper reads, and what the page about it says."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from endpoints.durations import DISCOVERY, PROBE, Durations
from endpoints.models import ProberLease
from proxy.live import live
from proxy.status.metric_families import FAMILIES, KNOWN, Kind
from tests.fakes import ScriptedBackend, json_reply

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()


async def scrape(proxy):
    answer = await proxy.call("GET", "/internal/metrics")
    assert answer.status == 200
    return answer, answer.body.decode()


def read_samples(text):
    """(name, labels) -> value; a sample that comes twice fails."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def read_families(text):
    """Name -> kind and label names, from the text itself."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    labels: dict[str, set[tuple[str, ...]]] = {}
    for name, inside in re.findall(r"^([a-z_0-9]+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        family = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        names = re.findall(r'([a-z_]+)="', inside)
        labels.setdefault(family, set()).add(tuple(sorted(set(names) - {"le"})))
    return kinds, labels


@pytest.fixture
async def busy(proxy):
    """A proxy that has answered, retried, failed and refused."""
    bad = json_reply({"error": {}}, status=503)
    async with ScriptedBackend(json_reply({"usage": {}})) as good, ScriptedBackend(bad) as failing:
        await proxy.add(good.url, 'gpu "1"\\\n', ["m", "n"], max_concurrent=3)
        await proxy.add(failing.url, "gpu-2", ["m"], priority=300)
        for model in ("m", "m", "n", "nobody"):
            await proxy.chat(model=model)
        await proxy.call("POST", "/olla/nowhere/v1/chat/completions", {"model": "m"})
        yield proxy


async def test_it_is_read_by_the_official_parser(busy):
    answer, text = await scrape(busy)
    assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    samples = read_samples(text)
    assert samples["olla_requests_total", ()] == 5
    assert samples["olla_model_requests_total", (("model", "m"),)] == 2
    assert text.endswith("\n")


async def test_it_keeps_names_that_no_label_should_hold(busy):
    _, text = await scrape(busy)
    names = {dict(labels).get("endpoint") for _, labels in read_samples(text)}
    assert 'gpu "1"\\\n' in names


async def test_it_has_only_declared_families_kinds_and_labels(busy):
    declared = {each.name: each for each in FAMILIES}
    kinds, labels = read_families((await scrape(busy))[1])
    assert kinds == {name: declared[name].kind.value for name in kinds}
    assert {name: sets for name, sets in labels.items() if name not in declared} == {}
    assert {name: sets for name, sets in labels.items() if sets != {tuple(sorted(declared[name].labels))}} == {}


async def test_it_writes_each_family_once_and_sorted(busy):
    _, text = await scrape(busy)
    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert names == re.findall(r"^# HELP (\S+)", text, re.MULTILINE)
    assert len(names) == len(set(names))


def test_it_declares_every_family_the_reference_has():
    assert len(KNOWN) == 16 + 8 + 5 + 12 + 4
    assert len({each.name for each in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_it_documents_every_family(family):
    labels = ", ".join(f"`{label}`" for label in family.labels)
    assert f"| `{family.name}` | {family.kind.value} | {labels}{' ' if labels else ''}| {family.text} |" in PAGE


def test_it_documents_no_family_that_is_gone():
    shown = re.findall(r"^\| `(olla_\w+)` \| (?:counter|gauge|histogram)", PAGE, re.MULTILINE)
    assert sorted(shown) == [each.name for each in FAMILIES]


def test_it_documents_every_label():
    names = {label for each in FAMILIES for label in each.labels}
    table = PAGE.split("## Labels")[1].split("## ")[0]
    own_words = {"status", "state", "version", "commit", "engine", "profile", "balancer", "direction", "mode",
                 "translator"}  # fmt: skip
    assert {name for name in names - own_words if f"`{name}`" not in table} == set()


async def test_it_has_every_family_that_does_not_depend_on_what_happened(busy):
    kinds, _ = read_families((await scrape(busy))[1])
    rare = {
        "olla_endpoint_discovery_age_seconds", "olla_model_tokens_per_second", "olla_rate_limited_total",
        "olla_size_refused_total", "olla_translator_fallbacks_total", "olla_prober_age_seconds",
        "olla_endpoint_probe_latency_ms", "olla_model_first_byte_ms", "olla_probe_duration_seconds",
        "olla_discovery_duration_seconds",
    }  # fmt: skip
    assert {each.name for each in FAMILIES} - set(kinds) <= rare


async def test_it_tells_how_long_the_prober_takes(busy):
    durations = Durations()
    for what, outcome, seconds in ((PROBE, "answered", 0.004), (PROBE, "timeout", 2.0), (DISCOVERY, "read", 0.2)):
        durations.add(what, outcome, seconds)
    row = {
        "holder": "h",
        "renewed_at": timezone.now(),
        "expires_at": timezone.now(),
        "durations": durations.write(),
    }
    await sync_to_async(ProberLease.objects.update_or_create)(pk=1, defaults=row)
    samples = read_samples((await scrape(busy))[1])
    answered = (("le", "0.005"), ("outcome", "answered"))
    assert samples["olla_probe_duration_seconds_bucket", answered] == 1
    assert samples["olla_probe_duration_seconds_sum", (("outcome", "timeout"),)] == 2.0
    assert samples["olla_discovery_duration_seconds_count", (("outcome", "read"),)] == 1


async def test_it_has_cumulative_buckets_that_end_with_all(busy):
    samples = read_samples((await scrape(busy))[1])
    for family in (each for each in FAMILIES if each.kind is Kind.HISTOGRAM):
        series: dict[object, list[tuple[float, float]]] = {}
        for (name, labels), value in samples.items():
            if name == f"{family.name}_bucket":
                rest = tuple(pair for pair in labels if pair[0] != "le")
                series.setdefault(rest, []).append((float(dict(labels)["le"]), value))
        for labels, found in series.items():
            counts = [value for _, value in sorted(found)]
            assert counts == sorted(counts)
            assert counts[-1] == samples[f"{family.name}_count", labels]


async def test_it_says_the_same_as_the_status_routes(busy):
    samples = read_samples((await scrape(busy))[1])
    system = (await busy.call("GET", "/internal/status")).json()["system"]
    assert samples["olla_requests_total", ()] == system["total_requests"]
    assert samples["olla_failures_total", ()] == system["total_failures"]
    rows = (await busy.call("GET", "/internal/status/endpoints")).json()["endpoints"]
    for row in rows:
        at = (("endpoint", row["name"]), ("endpoint_id", row["id"]))
        assert samples["olla_endpoint_requests_total", at] == row["request_count"]


async def test_it_zips_for_scrapers(busy):
    answer = await busy.call("GET", "/internal/metrics", headers=[("Accept-Encoding", "gzip")])
    assert b"olla_requests_total 5.0" in gzip.decompress(answer.body)


async def test_it_scrapes_an_empty_installation(proxy):
    samples = read_samples((await scrape(proxy))[1])
    assert (samples["olla_endpoints_total", ()], samples["olla_system_status", ()]) == (0, 0)


async def test_it_knows_no_success_rate_of_nothing(busy):
    samples = read_samples((await scrape(busy))[1])
    rates = {dict(labels)["model"]: value for (name, labels), value in samples.items()
             if name == "olla_model_success_rate_percent"}  # fmt: skip
    assert rates["m"] == 100
    assert math.isnan(rates["other"])


async def test_it_folds_models_nobody_lists(busy):
    for number in range(20):
        await busy.chat(model=f"made-up-{number}")
    samples = read_samples((await scrape(busy))[1])
    models = {dict(labels)["model"] for name, labels in samples if name == "olla_model_requests_total"}
    assert models == {"m", "n", "other"}
    assert samples["olla_model_requests_total", (("model", "other"),)] == 21
    assert json.dumps(sorted(live.tallies.models)) == '["m", "n", "other"]'
