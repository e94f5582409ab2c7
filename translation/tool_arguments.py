"""The arguments of a tool call: JSON text written by a model, checked and repaired.

A client runs a tool with whatever `input` it gets. Arguments that are no object are repaired where the
intention is plain (a code fence around them, text after them, an object encoded twice). Otherwise the raw text
goes into one field that no tool has, so that the client's own schema check fails in plain sight instead of the
tool running with nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from .json_text import InvalidJsonError, Json, build_json_text, parse_json

MALFORMED_FIELD = "_malformed_arguments"

_FENCE = re.compile(r"\A```[a-zA-Z]*\s*(.*?)\s*```\Z", re.DOTALL)
_SCANNER = json.JSONDecoder()


class Quality(StrEnum):
    """How the arguments came."""

    SOUND = "sound"
    REPAIRED = "repaired"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Arguments:
    """JSON text of an object, and how it came to be one."""

    text: str
    quality: Quality


def is_complete_object(text: str) -> bool:
    """Whether the text is one whole JSON object."""
    return isinstance(_parse(text), dict)


def repair_arguments(text: str) -> Arguments:
    """The arguments as the text of a JSON object; never raises."""
    stripped = text.strip()
    if not stripped:
        return Arguments("{}", Quality.SOUND)
    if is_complete_object(stripped):
        return Arguments(stripped, Quality.SOUND)
    repaired = _find_object(stripped)
    if repaired is not None:
        return Arguments(repaired, Quality.REPAIRED)
    return Arguments(build_json_text({MALFORMED_FIELD: text}), Quality.MALFORMED)


def _find_object(text: str) -> str | None:
    fenced = _FENCE.match(text)
    if fenced:
        text = fenced[1]
    value = _parse(text)
    if isinstance(value, str):
        text = value.strip()
        value = _parse(text)
    if isinstance(value, dict):
        return text
    return _leading_object(text)


def _leading_object(text: str) -> str | None:
    """The object a text begins with, without what follows it."""
    if not text.startswith("{"):
        return None
    try:
        end = _SCANNER.raw_decode(text)[1]
    except (ValueError, RecursionError):
        return None
    return text[:end] if is_complete_object(text[:end]) else None


def _parse(text: str) -> Json:
    try:
        return parse_json(text)
    except InvalidJsonError:
        return None
