"""`/internal/status/models`: what models there are, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from endpoints.listed import ListedModel, ModelType, judge_type
from endpoints.model_facts import merge_facts
from endpoints.quantities import write_size
from endpoints.snapshot import Snapshot, fold_model
from proxy.status import formats
from proxy.status.picture import EndpointFacts, Picture, read_endpoints

RECENT = 10
NO_FAMILY = "unknown"
LONG_CONTEXT = 100_000
_CAPABILITIES = {
    ModelType.VLM: ("vision", "multimodal"),
    ModelType.EMBEDDINGS: ("embeddings", "vector_search"),
    ModelType.LLM: ("text_generation", "chat"),
}


@dataclass(slots=True)
class ModelFound:
    """A model by the name backends report, with the endpoints that do."""

    name: str
    listings: list[tuple[EndpointFacts, ListedModel]] = field(default_factory=list)

    @property
    def family(self) -> str:
        """Its family; `unknown` where nobody tells."""
        return merge_facts(tuple(model for _, model in self.listings)).family or NO_FAMILY

    @property
    def seen_at(self) -> float | None:
        """When an endpoint last listed it."""
        return max((each.health.models_checked or 0 for each, _ in self.listings), default=0) or None


def find_models(endpoints: Iterable[EndpointFacts]) -> list[ModelFound]:
    """Every model once, by name; its endpoints in the order of their addresses."""
    found: dict[str, ModelFound] = {}
    for endpoint in sorted(endpoints, key=lambda each: (each.url, each.name)):
        for model in endpoint.record.models:
            found.setdefault(model.name, ModelFound(model.name)).listings.append((endpoint, model))
    return [found[name] for name in sorted(found)]


def build_models(picture: Picture, *, grouped: bool = False) -> dict[str, Any]:
    """The whole answer; `grouped` adds every model under its family."""
    models = find_models(read_endpoints(picture))
    families: dict[str, list[ModelFound]] = {}
    for model in models:
        families.setdefault(model.family, []).append(model)
    aliases = find_aliases(picture.snapshot)
    recent = sorted(models, key=lambda each: (-(each.seen_at or 0), each.name))[:RECENT]
    answer: dict[str, Any] = {
        "timestamp": formats.stamp(picture.now),
        "models_by_family": {name: [each.name for each in families[name]] for name in sorted(families)},
        "recent_models": [_build_row(each, aliases, picture.now) for each in recent],
        "total_models": len(models),
        "total_families": len(families),
        "total_endpoints": len({endpoint.record.id for model in models for endpoint, _ in model.listings}),
    }
    if grouped:
        ordered = sorted(families, key=lambda name: (name == NO_FAMILY, name))
        answer["model_groups"] = [_build_group(name, families[name], aliases, picture.now) for name in ordered]
    return answer


def _build_group(
    family: str, models: list[ModelFound], aliases: dict[str, set[str]], now: float
) -> dict[str, Any]:
    return {
        "family": family,
        "models": [_build_row(each, aliases, now) for each in models],
        "endpoints": sorted({endpoint.name for each in models for endpoint, _ in each.listings}),
        "model_count": len(models),
    }


def _build_row(model: ModelFound, aliases: dict[str, set[str]], now: float) -> dict[str, Any]:
    places = sorted((endpoint.name, endpoint.public_id) for endpoint, _ in model.listings)
    listed = [each for _, each in model.listings]
    facts = merge_facts(tuple(listed))
    bytes_on_disk = next((each.size_bytes for each in listed if each.size_bytes), 0)
    seen_at = model.seen_at
    optional = {
        "last_seen_at": formats.stamp(seen_at) if seen_at else "",
        "type": facts.model_type,
        "family": facts.family,
        "size": write_size(bytes_on_disk) if bytes_on_disk else "",
        "params": facts.parameter_size,
        "quant": facts.quantization,
        "endpoint_ids": [public_id for _, public_id in places],
        "aliases": sorted(aliases.get(fold_model(model.name), set()) - {model.name}),
        "capabilities": tell_capabilities(listed),
    }
    return {
        "name": model.name,
        "last_seen": formats.ago(seen_at, now),
        "endpoints": [name for name, _ in places],
        **{name: value for name, value in optional.items() if value},
        "available": any(endpoint.usable for endpoint, _ in model.listings),
    }


def tell_capabilities(listed: list[ListedModel]) -> list[str]:
    """What a model can do, in the words dashboards know, followed by those its endpoints use."""
    facts = merge_facts(tuple(listed))
    kind = next(filter(None, map(judge_type, listed)), "")
    words = list(_CAPABILITIES.get(ModelType(kind), ())) if kind else []
    if max((each.context_length or 0 for each in listed), default=0) > LONG_CONTEXT:
        words.append("long_context")
    if any(part in each.quantization.lower() for each in listed for part in ("fp16", "bf16")):
        words.append("high_precision")
    return list(dict.fromkeys([*words, *facts.capabilities]))


def find_aliases(snapshot: Snapshot) -> dict[str, set[str]]:
    """Case-folded name -> every name of the same model, the operator's included."""
    found: dict[str, set[str]] = {}
    for model in snapshot.catalogue.models:
        names = {model.id, *(listed.name for _, listed in model.sources)}
        for name in names:
            found.setdefault(fold_model(name), set()).update(names)
    for alias in snapshot.aliases.values():
        for target in alias.targets:
            found.setdefault(fold_model(target), set()).add(alias.name)
    return found
