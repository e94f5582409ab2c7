"""How much the model should think: Anthropic's `thinking` and effort as the switches backends have."""

from __future__ import annotations

from .anthropic_request import AnthropicRequest, block_kind
from .content_blocks import BlockReader
from .facts import Feature
from .json_text import Json

_LEVELS = ("low", "medium", "high", "xhigh", "max")
_LEFT_TO_MODEL = frozenset({"adaptive", "between_tools"})
_MEDIUM_BUDGET = 4096
_HIGH_BUDGET = 16384


def omits_thinking(thinking: Json) -> bool:
    """Whether the client wants thinking blocks without their text."""
    return isinstance(thinking, dict) and thinking.get("display") == "omitted"


def add_thinking(payload: dict[str, Json], request: AnthropicRequest, reader: BlockReader) -> None:
    """Add `reasoning_effort` and the template's switch to a chat request, as far as the backend knows them."""
    traits = reader.traits
    config = request.thinking if isinstance(request.thinking, dict) else {}
    kind = block_kind(config)
    effort = _read_effort(request, reader)
    if kind == "disabled":
        _switch_off(payload, reader)
        return
    if kind == "enabled":
        effort = effort or _effort_for_budget(config.get("budget_tokens"))
        if traits.thinking_switch:
            payload["chat_template_kwargs"] = {"enable_thinking": True}
        elif not traits.efforts:
            reader.lose(Feature.THINKING, "thinking")
    elif request.thinking is not None and kind not in _LEFT_TO_MODEL:
        reader.lose(Feature.THINKING, "thinking")
    if effort and traits.efforts:
        payload["reasoning_effort"] = effort if effort in traits.efforts else _nearest(effort, traits.efforts)


def _switch_off(payload: dict[str, Json], reader: BlockReader) -> None:
    known = reader.traits.thinking_switch
    if known:
        payload["chat_template_kwargs"] = {"enable_thinking": False}
    if "none" in reader.traits.efforts:
        payload["reasoning_effort"] = "none"
    elif reader.traits.efforts and not known:
        payload["reasoning_effort"] = reader.traits.efforts[0]


def _read_effort(request: AnthropicRequest, reader: BlockReader) -> str:
    config = request.output_config if isinstance(request.output_config, dict) else {}
    effort = config.get("effort")
    if effort is None:
        return ""
    if effort not in _LEVELS or not reader.traits.efforts:
        reader.lose(Feature.EFFORT, "output_config.effort")
        return ""
    return str(effort)


def _effort_for_budget(budget: Json) -> str:
    if not isinstance(budget, int) or budget < _MEDIUM_BUDGET:
        return "low"
    return "medium" if budget < _HIGH_BUDGET else "high"


def _nearest(effort: str, known: tuple[str, ...]) -> str:
    """The strongest level a backend knows for one it does not know; the weakest real one for a weak request."""
    return known[-1] if effort != "low" else next(level for level in known if level != "none")
