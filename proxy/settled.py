"""Decisions that hold for every like request, kept with the snapshot they were made of. (pure)

In quiet moments (no endpoint seen failing, resting or held out) a request that names a model is judged by the
snapshot and little else, and the answer stays the same until a status grows stale, a maintenance window begins or
ends, or there is another snapshot. Only requests that are routed are remembered: whoever invents model names finds
no room here.
"""

from __future__ import annotations

from dataclasses import dataclass

from endpoints.rules import Rule, RuleAction
from endpoints.snapshot import Snapshot
from proxy.decision import Action, Decision
from proxy.sieve import LiveView, find_stale

_MOST = 4096
# Longer paths and model names than any in use are not worth their place.
_LONGEST = 512

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """A decision and how long it holds: seconds since the epoch, the interval in seconds."""

    decision: Decision
    made: float
    until: float  # the next beginning or end of a maintenance window
    due: float  # until then every candidate's status is to be believed ...
    grace: float  # ... and after it, as long as the prober was seen no longer ago than this

    def holds(self, view: LiveView) -> bool:
        """Whether the same request gets the same decision now."""
        now = view.now
        return self.made <= now < self.until and (now <= self.due or now <= view.prober_seen + self.grace)


def may_settle(view: LiveView, rule: Rule | None) -> bool:
    """Whether nothing but the snapshot and the clock decides: no endpoint is out, no dice are thrown."""
    return not view.demoted and not view.held_out and (rule is None or rule.action is not RuleAction.SPLIT)


def settle(snapshot: Snapshot, key: Key, decision: Decision, view: LiveView) -> None:
    """Remember a decision, when it is one that can be."""
    if decision.action is not Action.ROUTED or sum(len(part) for part in key if isinstance(part, str)) > _LONGEST:
        return
    candidates = decision.candidates
    # No later than the first candidate's status grows stale; a bound, since there may be a thousand of them.
    grace = 3 * min([each.check_interval for each in candidates])
    due = max(min([each.next_check for each in candidates]), view.prober_seen) + grace
    if view.now > due and find_stale(candidates, view):
        return
    holders = [each for each in snapshot.windowed if each.id in (decision.native_names or ())]
    edges = [edge for each in holders for edge in each.maintenance or () if edge > view.now]
    if len(snapshot.settled) >= _MOST:
        snapshot.settled.clear()
    snapshot.settled[key] = Settled(
        decision,
        made=view.now,
        until=min(edges, default=float("inf")),
        due=due,
        grace=grace,
    )
