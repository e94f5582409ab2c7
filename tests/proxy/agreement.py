"""Fleets, rules and requests by chance, for holding what explain says against what then happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from endpoints import loading
from endpoints.models import Endpoint, ModelAlias, RoutingRule, RuleCondition
from proxy.live import live
from proxy.queueing import Slot
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.conftest import Proxy

KINDS = ("ollama", "openai-compatible", "vllm", "lm-studio", "llamacpp", "litellm", "lemonade", "openai")
MODELS = ("m", "llama3:8b", "qwen", "only-here")
ASKED = (*MODELS, "LLAMA3:8b", "fast", "nobody-has-it")
PREFIXES = ("proxy", "openai", "ollama", "vllm", "lmstudio", "anthropic", "openai-compatible", "nonsense")
PATHS = (
    ("POST", "v1/chat/completions"), ("POST", "v1/chat/completions"), ("POST", "v1/embeddings"),
    ("POST", "api/chat"), ("POST", "api/pull"), ("POST", "v1/load_lora_adapter"), ("GET", "v1/models"),
    ("GET", "v1/models/m"), ("GET", "api/version"), ("DELETE", "v1/files/7"), ("POST", "v1/%2e%2e/admin"),
    ("PUT", "v1/things"),
)  # fmt: skip
CHAT = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
GOOD, TIRED, DEAD = "good", "tired", "dead"


class Backends:
    """One backend that answers, one that always says 503, and an address where nobody is."""

    def __init__(self) -> None:
        self.good = ScriptedBackend(json_reply(CHAT))
        self.tired = ScriptedBackend(json_reply({"error": "no"}, 503))

    async def __aenter__(self) -> Backends:
        await self.good.__aenter__()
        await self.tired.__aenter__()
        self.urls = {GOOD: self.good.url, TIRED: self.tired.url, DEAD: "http://127.0.0.1:9"}
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.good.stop()
        await self.tired.stop()


SETTINGS: dict[str, tuple[str, ...]] = {
    "OLLA_ROUTING_STRATEGY": ("strict", "optimistic", "discovery"),
    "OLLA_FALLBACK_BEHAVIOR": ("compatible_only", "all", "none"),
    "OLLA_LOAD_BALANCER": ("least-connections", "priority", "round-robin"),
    "OLLA_STICKY_SESSIONS": ("0", "1"),
    "OLLA_DISCOVERY_REFRESH_ON_MISS": ("0", "0", "1"),
    "OLLA_DISCOVERY_MISS_TIMEOUT": ("0.1",),
    "OLLA_OPEN_GUARDED_PATHS": ("", "", "ollama", "*"),
    "OLLA_PER_IP_REQUESTS_PER_MINUTE": ("0", "0", "0", "15"),
    "OLLA_QUEUE_TIMEOUT": ("0.05",),
    "OLLA_BREAKER_THRESHOLD": ("2", "5"),
}


async def make_fleet(proxy: Proxy, dice: Random, backends: Backends) -> dict[str, str]:
    """Endpoints in all states; how each one behaves, by name."""
    behaviour = {}
    for number in range(dice.randint(0, 6)):
        name = f"e{number}"
        behaviour[name] = dice.choice((GOOD, GOOD, GOOD, TIRED, DEAD))
        base = dice.choice(("", "", "/base"))
        await proxy.add(
            backends.urls[behaviour[name]] + base,
            name,
            models=dice.sample(MODELS, dice.randint(0, 3)),
            backend_type=dice.choice(KINDS),
            status=dice.choice(("healthy", "healthy", "healthy", "busy", "warming", "offline", "config_error")),
            state=dice.choice(("active", "active", "active", "active", "draining", "disabled")),
            priority=dice.choice((50, 100, 100)),
            weight=dice.choice((1.0, 1.0, 0.5, 3.0)),
            tags=dice.choice(("", "gpu", "gpu, fast")),
            preserve_path=dice.random() < 0.5,
            max_concurrent=dice.choice((None, None, 1)),
            requests_per_minute=dice.choice((None, None, None, 2)),
        )
    return behaviour


def make_rules(dice: Random) -> None:
    """Some rules of every kind; blocking."""
    endpoints = list(Endpoint.objects.all())
    actions = ("restrict", "prefer", "rewrite_model", "policy", "strategy", "split", "reject")
    for number in range(dice.randint(0, 4)):
        rule = RoutingRule.objects.create(
            name=f"r{number}",
            order=dice.randint(1, 5),
            action=dice.choice(actions),
            tags=dice.choice(("gpu", "fast", "")),
            model=dice.choice(("m", "fast", "nobody-has-it")),
            policy=dice.choice(("priority", "round-robin", "least-connections")),
            strategy=dice.choice(("strict", "optimistic")),
            fallback=dice.choice(("", "all")),
            percentage=dice.choice((10, 50, 90)),
        )
        rule.endpoints.set(dice.sample(endpoints, min(len(endpoints), dice.randint(0, 2))))
        for field, value, header in dice.sample(CONDITIONS, dice.randint(1, 2)):
            RuleCondition.objects.create(rule=rule, field=field, operator="glob", value=value, header=header)
    if dice.random() < 0.6:
        targets = "\n".join(dice.sample(MODELS, 2))
        ModelAlias.objects.create(name="fast", targets=targets, one_model=dice.random() < 0.5)


CONDITIONS = (
    ("model", "llama*", ""), ("prefix", "openai*", ""), ("path", "*/embeddings", ""), ("header", "red", "X-Team"),
    ("client_network", "10.0.0.0/8", ""), ("capability", "tools", ""), ("model", "*", ""),
)  # fmt: skip


def occupy(dice: Random) -> list[Slot]:
    """Take places, as requests in flight would; to be released."""
    slots = [live.queue.try_take(each.id) for each in loading.current().endpoints if dice.random() < 0.3]
    return [slot for slot in slots if slot is not None]


def make_requests(dice: Random, count: int) -> Iterator[tuple[str, str, bytes, list[tuple[str, str]]]]:
    """Method, path, body and headers."""
    for _ in range(count):
        method, rest = dice.choice(PATHS)
        prefix = dice.choice(PREFIXES)
        if prefix == "anthropic":
            method, rest = dice.choice((("POST", "v1/messages"), ("POST", "v1/messages"), ("GET", "v1/models")))
        headers = [("X-Team", "red")] if dice.random() < 0.3 else []
        if dice.random() < 0.4:
            headers.append(("X-Olla-Session-ID", dice.choice("ab")))
        yield method, f"/olla/{prefix}/{rest}", _make_body(dice, method, rest), headers


def _make_body(dice: Random, method: str, rest: str) -> bytes:
    if method != "POST":
        return b""
    chance = dice.random()
    if chance < 0.04:
        return b"{broken"
    if chance < 0.07:
        return b'{"model":"m","MODEL":"n"}'
    body: dict[str, Any] = {"messages": [{"role": "user", "content": dice.choice(("one", "two"))}]}
    if chance < 0.92:
        body["model"] = dice.choice(ASKED)
    if rest == "v1/messages":
        body["max_tokens"] = 5
    if dice.random() < 0.15:
        body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    return json.dumps(body).encode()
