"""What one request gets: text, JSON that fits a schema, or a tool call. (pure)"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from olla_site.demo.schemas import fill_schema
from olla_site.demo.words import build_reply, cut_tokens, last_prompt, read_text

ANY_TOOL = "*"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the client offers."""

    name: str
    description: str
    parameters: Any


@dataclass(frozen=True, slots=True)
class Ask:
    """What both dialects ask for, in one shape."""

    model: str
    messages: list[Any]
    tools: tuple[Tool, ...] = ()
    must_call: str = ""  # a tool's name, ANY_TOOL, or empty when the prompt decides
    json_mode: bool = False
    schema: Any = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    seed: object = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer: the pieces of its text, or a tool and its arguments."""

    pieces: list[str]
    cut: bool = False  # max_tokens was reached
    tool: str = ""
    arguments: Any = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


def choose_reply(ask: Ask, speaker: str) -> Reply:
    """The reply to `ask` from the backend called `speaker`."""
    prompt = last_prompt(ask.messages)
    tool = choose_tool(ask, prompt)
    if tool is not None:
        return Reply([], tool=tool.name, arguments=fill_schema(tool.parameters, prompt))
    if ask.json_mode:
        return _limit(json.dumps(_build_json(ask, prompt, speaker), ensure_ascii=False), ask)
    return _limit(_build_text(ask, prompt, speaker), ask)


def choose_tool(ask: Ask, prompt: str) -> Tool | None:
    """The tool to call: the demanded one, else one whose name or description shares a word with the prompt.

    Nothing once the client has sent a tool's result, unless a call is demanded.
    """
    if ask.must_call:
        wanted = [tool for tool in ask.tools if ask.must_call in {ANY_TOOL, tool.name}]
        return wanted[0] if wanted else None
    if not ask.messages or _role(ask.messages[-1]) != "user":
        return None
    asked = _telling_words(prompt)
    return next((t for t in ask.tools if asked & _telling_words(f"{t.name} {t.description}")), None)


def _build_json(ask: Ask, prompt: str, speaker: str) -> Any:
    if isinstance(ask.schema, dict) and ask.schema:
        return fill_schema(ask.schema, prompt)
    return {"demo_backend": speaker, "prompt": prompt, "answer": build_reply(prompt, speaker, ask.model, ask.seed)}


def _build_text(ask: Ask, prompt: str, speaker: str) -> str:
    text = build_reply(prompt, speaker, ask.model, ask.seed)
    if ask.messages and _role(ask.messages[-1]) in {"tool", "function"}:
        result = read_text(ask.messages[-1].get("content"))
        text += f" The tool said: {result}"
    return text


def _limit(text: str, ask: Ask) -> Reply:
    for stop in ask.stop:
        text = text.partition(stop)[0] if stop else text
    pieces = cut_tokens(text)
    if ask.max_tokens is not None and 0 < ask.max_tokens < len(pieces):
        return Reply(pieces[: ask.max_tokens], cut=True)
    return Reply(pieces)


def _role(message: Any) -> str:
    return str(message.get("role")) if isinstance(message, dict) else ""


def _telling_words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 3}
