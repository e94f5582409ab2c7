"""`/version`: what this product is and can do."""

from __future__ import annotations

import platform
import sys
from typing import Any

from endpoints.profiles import PREFIXES
from proxy.product import BUILD_DATE, COMMIT, NAME, VERSION
from proxy.status.process_facts import python_name

_ROUTES = {
    "health": "/internal/health",
    "metrics": "/internal/metrics",
    "models": "/olla/models",
    "process": "/internal/process",
    "proxy": "/olla/proxy/",
    "ready": "/internal/ready",
    "status": "/internal/status",
    "version": "/version",
}
# Pages of this installation: the product has no address of its own.
_LINKS = {"homepage": "/", "documentation": "/connect/", "releases": ""}
_CAPABILITIES = [
    "load_balancing", "health_checking", "rate_limiting", "model_unification", "endpoint_discovery",
    "message_translation", "translation_anthropic", "passthrough_anthropic",
]  # fmt: skip
# In the mixed spelling that clients of the reference compare with.
_BACKENDS = [
    "ollama", "lemonade", "litellm", "llamacpp", "lmdeploy", "lm_studio", "omlx", "sglang", "vllm", "vllm-mlx",
    "openai_compatible", "docker-model-runner",
]  # fmt: skip


def build_version() -> dict[str, Any]:
    """The whole answer."""
    return {
        "name": f"{NAME} for Django",
        "version": VERSION,
        "edition": "Community",
        "description": "One address in front of every inference server a team runs",
        "api": {"version": "v1", "endpoints": _ROUTES},
        "links": _LINKS,
        "build": {
            "commit": COMMIT,
            "date": BUILD_DATE,
            "go_version": python_name(),
            "python_version": platform.python_version(),
            "platform": f"{sys.platform}/{platform.machine()}",
        },
        "capabilities": _CAPABILITIES,
        "capabilities_experimental": ["translation_anthropic", "passthrough_anthropic"],
        "supported_backends": _BACKENDS,
        "providers": [f"/olla/{prefix}/" for prefix in PREFIXES],
    }
