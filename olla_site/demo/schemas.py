"""Values that fit a JSON schema, for JSON mode and for tool arguments. (pure)

Covers what clients send for structured output and tools: types, enum, const, properties, items, references
into $defs, anyOf/oneOf/allOf. Strings are taken from the prompt where it offers a name.
"""

from __future__ import annotations

import re
from typing import Any

MAX_DEPTH = 12
MAX_ITEMS = 100
MAX_LENGTH = 10_000
_NAME = re.compile(r"(?<![.!?]\s)(?<!^)\b([A-Z][\w-]+(?: [A-Z][\w-]+)*)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def fill_schema(schema: Any, prompt: str) -> Any:
    """A value that fits `schema`; an empty object when the schema says nothing."""
    if not isinstance(schema, dict):
        return {}
    return _fill(schema, schema, "answer", prompt, 0)


def _fill(schema: dict[str, Any], root: dict[str, Any], name: str, prompt: str, depth: int) -> Any:
    schema = _resolve(schema, root)
    if depth > MAX_DEPTH + 1:
        return None  # a schema that demands itself has no finite value
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        spoken = [each for each in schema["enum"] if isinstance(each, str) and each.lower() in prompt.lower()]
        return spoken[0] if spoken else schema["enum"][0]
    kind = _kind(schema)
    if kind == "object":
        return _fill_object(schema, root, prompt, depth)
    if kind == "array":
        return _fill_array(schema, root, name, prompt, depth)
    return _fill_plain(kind, schema, name, prompt)


def _fill_object(schema: dict[str, Any], root: dict[str, Any], prompt: str, depth: int) -> dict[str, Any]:
    required = schema.get("required", [])
    return {
        name: _fill(each, root, name, prompt, depth + 1)
        for name, each in schema.get("properties", {}).items()
        if isinstance(each, dict) and (name in required or depth < 2)
    }


def _fill_array(schema: dict[str, Any], root: dict[str, Any], name: str, prompt: str, depth: int) -> list[Any]:
    # Optional items end with the depth, so that a schema that refers to itself ends too.
    count = min(max(int(schema.get("minItems", 0)), 1 if depth < MAX_DEPTH else 0), MAX_ITEMS)
    items = schema.get("items")
    item = items if isinstance(items, dict) else {}
    return [_fill(item, root, name, prompt, depth + 1)] * count if count else []


def _fill_plain(kind: str, schema: dict[str, Any], name: str, prompt: str) -> Any:
    if kind in {"integer", "number"}:
        spoken = _NUMBER.search(prompt)
        value = float(spoken[0]) if spoken else 1.0
        value = min(max(value, schema.get("minimum", value)), schema.get("maximum", value))
        return int(value) if kind == "integer" else value
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    spoken = _NAME.search(prompt)
    text = spoken[1] if spoken else f"demo {name}"
    text = text.ljust(min(int(schema.get("minLength", 0)), MAX_LENGTH), ".")
    return text[: int(schema.get("maxLength", len(text)))]


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema else "string"


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Follow references and take the first choice of a union."""
    for _ in range(MAX_DEPTH):
        reference = schema.get("$ref")
        choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if isinstance(reference, str):
            schema = _look_up(reference, root)
        elif choices:
            telling = [each for each in choices if isinstance(each, dict) and each.get("type") != "null"]
            schema = telling[0] if telling else {"type": "null"}
        else:
            break
    return schema


def _look_up(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}
