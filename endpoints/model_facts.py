"""What is known of one model from all its listings together. (pure)

For people, filters and listings. Each fact is the first that a listing gives, best endpoint first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from endpoints.families import judge_family, judge_publisher
from endpoints.listed import Capability, ListedModel, judge_type, tell_capabilities
from endpoints.quantities import normalize_quantization, normalize_size, parse_count


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts of one model in the product's own spelling; empty where nobody tells."""

    family: str
    variant: str
    parameter_size: str
    parameter_count: int
    quantization: str
    file_format: str
    context_length: int | None
    model_type: str
    capabilities: tuple[str, ...]
    publisher: str
    digest: str
    total_size: int
    modified_at: float | None


@lru_cache(maxsize=16_384)
def merge_facts(models: tuple[ListedModel, ...]) -> ModelFacts:
    """The facts of a model from its listings, best first; there is at least one."""
    family, variant = _merge_family(models)
    size = _first(models, "parameter_size")
    able = {each for model in models for each in tell_capabilities(model)}
    return ModelFacts(
        family=family,
        variant=variant,
        parameter_size=normalize_size(size),
        parameter_count=parse_count(size),
        quantization=normalize_quantization(_first(models, "quantization")),
        file_format=_first(models, "file_format"),
        context_length=next((m.context_length for m in models if m.context_length), None),
        model_type=next(filter(None, map(judge_type, models)), ""),
        capabilities=tuple(each.value for each in Capability if each in able),
        publisher=_first(models, "owner") or judge_publisher(models[0].name, family),
        digest=_first(models, "digest"),
        total_size=sum(model.size_bytes or 0 for model in models),
        modified_at=next((m.modified_at for m in models if m.modified_at), None),
    )


def _merge_family(models: Sequence[ListedModel]) -> tuple[str, str]:
    given = _first(models, "family")
    if given:
        return given, ""
    return next((found for found in (judge_family(model.name) for model in models) if found[0]), ("", ""))


def _first(models: Sequence[ListedModel], name: str) -> str:
    return next((text for text in (getattr(model, name) for model in models) if text), "")
