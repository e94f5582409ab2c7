"""Decision: the outcome of routing, and the settings it was made by. (pure)"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from endpoints.rules import Fallback, Rule, Strategy
from proxy.errors import ErrorCode
from proxy.sieve import DropReason, Endpoints


class Action(StrEnum):
    """What became of a request."""

    ROUTED = "routed"
    FALLBACK = "fallback"
    REJECTED = "rejected"


class Refresh(StrEnum):
    """How far the discovery strategy has come: whether models were read anew for this request."""

    OFF = "off"  # not allowed by the settings
    POSSIBLE = "possible"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings a request is judged by; a rule may replace parts of them."""

    strategy: Strategy = Strategy.STRICT
    fallback: Fallback = Fallback.COMPATIBLE_ONLY
    refresh: Refresh = Refresh.OFF
    loaded_first: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of routing.

    `tiers` are tried in order, each by the policy; `sent_names` holds, by endpoint id, the model name to send
    where it is not the one asked for. `refresh` asks the caller to read models anew and route again.
    """

    action: Action
    strategy: str = ""
    reason: str = ""
    tiers: tuple[Endpoints, ...] = ()
    sent_names: Mapping[int, str] = field(default_factory=dict)
    rule: Rule | None = None
    drops: Mapping[DropReason, int] = field(default_factory=dict)
    code: ErrorCode | None = None
    message: str = ""
    refresh: bool = False
    pinned: bool = False  # an operator named the one endpoint that may answer
    # The candidates that have the model in memory, where others would have to load it: chosen first in each tier.
    loaded: frozenset[int] = frozenset()
    # What the stages judged by, for the trace.
    native_names: Mapping[int, str] | None = None
    capabilities: Collection[str] = ()

    @property
    def candidates(self) -> Endpoints:
        """Every endpoint that may be tried, in the order of the tiers."""
        return tuple(each for tier in self.tiers for each in tier)
