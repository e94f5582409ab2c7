"""Every page a person can open, as one table, and what there must be for each to have something to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from django.test import Client

from endpoints.alert_tables import AlertHook
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, ModelAlias, RoutingRule
from olla_site.portal import preview_jobs
from proxy.models import RequestLog
from tests.endpoints.rule_desk import make_rule
from tests.portal.fleet_rows import lease, load_now
from tests.portal.test_requests_page import log

EXPLAINED = "/explain/?path=/olla/openai/v1/chat/completions&model={model}"
# Address -> queries, which are the same however much there is. In braces: the first of its kind.
PAGES = {
    "/": 4,
    "/fleet/rows/": 4,
    "/fleet/{endpoint}/": 5,
    "/fleet/{endpoint}/history/": 2,
    "/fleet/add/": 2,
    "/portal/live.json": 2,
    "/models/": 2,
    "/models/?sort=used&now=usable&q=a": 2,
    "/models/{model}": 2,
    "/requests/": 6,
    "/requests/rows/?after=1": 4,
    "/requests/{request}/": 3,
    "/explain/": 2,
    EXPLAINED: 2,
    "/rules/": 9,
    "/rules/preview/{preview}/": 2,
    "/playground/?model={model}": 2,
    "/connect/?model={model}": 2,
    "/admin/": 3,
    "/admin/endpoints/endpoint/": 6,
    "/admin/endpoints/endpoint/{endpoint}/change/": 5,
    "/admin/endpoints/endpoint/{endpoint}/delete/": 6,
    "/admin/endpoints/endpoint/{endpoint}/history/": 4,
    "/admin/endpoints/discoveredmodel/": 8,
    "/admin/endpoints/discoveredmodel/drift/": 2,
    "/admin/endpoints/modelalias/": 5,
    "/admin/endpoints/modelalias/{alias}/change/": 3,
    "/admin/endpoints/routingrule/": 7,
    "/admin/endpoints/routingrule/{rule}/change/": 7,
    "/admin/endpoints/alerthook/": 5,
    "/admin/endpoints/alerthook/{hook}/change/": 3,
    "/admin/proxy/requestlog/": 6,
    "/admin/proxy/requestlog/{request}/change/": 3,
    "/admin/proxy/requesthour/": 4,
}


def fill(rows: list[dict[str, Any]], text: str, size: int) -> None:
    """A fleet; so many rules and aliases, and ten times as many logged requests, whose every word is `text`."""
    lease(600)
    for row in rows:
        models, health = row.pop("models"), row.pop("health")
        endpoint = Endpoint.objects.create(**row)
        EndpointHealth.objects.create(endpoint=endpoint, **health)
        facts = [{"name": each} if isinstance(each, str) else each for each in models]
        DiscoveredModel.objects.bulk_create(DiscoveredModel(endpoint=endpoint, **each) for each in facts)
    first = Endpoint.objects.order_by("-priority", "name")[0]
    names = list(first.discovered_models.values_list("name", flat=True)[:5])
    for number in range(size):
        condition = {"field": "model", "operator": "is", "value": f"{number}{text}"[:500], "header": ""}
        rule = make_rule(condition, name=f"{number}{text}"[:100], order=number, message=text[:500])
        rule.endpoints.add(first)
        ModelAlias.objects.create(name=f"{number}{text}"[:500], targets="\n".join(names), notes=text)
    AlertHook.objects.create(name=text[:100], url="https://hooks.example/x")
    for number in range(10 * size):
        log(number, **_logged(first, names[number % len(names)], text))
    load_now()


def _logged(endpoint: Endpoint, model: str, text: str) -> dict[str, Any]:
    failed = {"endpoint_id": endpoint.pk, "endpoint": endpoint.name, "began_ms": 1, "waited_ms": 0, "ms": 9}
    trace = {
        "action": "routed", "strategy": "strict", "reason": "model_found", "rule": text,
        "candidates": [[text] * 9], "dropped": {"status": 2},
    }  # fmt: skip
    return {
        "model": model[:200], "sent_model": text[:200], "endpoint": endpoint.name, "endpoint_id": endpoint.pk,
        "client": text[:64], "peer": text[:63], "path": f"/olla/{text}"[:1024], "provider": text[:100],
        "attempts": 2, "status": 502, "outcome": "backend_error", "error_code": "upstream_unreachable",
        "attempt_notes": json.dumps([{**failed, "status": None, "verdict": "failed", "error": text}] * 2),
        "trace": json.dumps(trace), "metrics": json.dumps({text[:50]: text}),
    }  # fmt: skip


def every_address(client: Client) -> Iterator[tuple[str, str]]:
    """Each entry of PAGES with its address here; `client` is an administrator's, and a preview is made with it."""
    endpoint = Endpoint.objects.order_by("-priority", "name")[0]
    model = endpoint.discovered_models.order_by("pk")[0]
    rule = RoutingRule.objects.order_by("order")[0]
    answer = client.post("/rules/preview/", {"step": "delete", "rule": rule.pk})
    preview = answer.headers["Location"].rstrip("/").rsplit("/", 1)[1]
    assert preview_jobs.desk._jobs[preview].ended.wait(30)
    firsts = {
        "endpoint": endpoint.pk, "model": quote(model.name), "rule": rule.pk, "preview": preview,
        "alias": ModelAlias.objects.order_by("pk")[0].pk, "request": RequestLog.objects.order_by("-pk")[0].pk,
        "hook": AlertHook.objects.all()[0].pk,
    }  # fmt: skip
    for pattern in PAGES:
        yield pattern, pattern.format(**firsts)
