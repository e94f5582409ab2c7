"""Snapshot: the immutable picture of endpoints, health and models that every request is judged by. (pure)

Built by `endpoints/loading.py` from the tables. Whatever routing would otherwise compute for each endpoint
of each request is prepared here once: the endpoints of a provider prefix, and those that have a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from endpoints.addressing import TLS, Origin
from endpoints.health import ROUTABLE, OperatorState, Status, Window, state_now
from endpoints.listed import ListedModel as ListedModel
from endpoints.listed import fold_model as fold_model
from endpoints.outgoing import Limits
from endpoints.profile import NativeAnthropic
from endpoints.profiles import PREFIXES, Profile, prefix_accepts
from endpoints.rules import Rule
from endpoints.secrets import Secret
from endpoints.unify import Catalogue, build_catalogue

UNIVERSAL = "proxy"  # the prefix of /olla/proxy, where every kind of endpoint may answer
ANTHROPIC = "anthropic"  # the prefix of /olla/anthropic, where every kind may too
DEFAULT_RETRY_STATUSES = frozenset({502, 503, 429})
NO_CATALOGUE = Catalogue()


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: there is one of each
class EndpointRecord:
    """An endpoint as the request path sees it: everything resolved, nothing to look up."""

    id: int
    name: str
    backend_type: str  # canonical and detected: never `auto` once it is known
    profile: Profile
    url: str
    origin: Origin
    base_path: str  # path of the URL without trailing slash, "" for none
    preserve_path: bool
    priority: int
    weight: float
    tags: frozenset[str]
    state: OperatorState
    status: Status
    status_since: float
    next_check: float
    check_interval: float
    last_checked: float | None
    last_error: str
    latency_ms: float | None
    # Sent with every request; set last, so they win over the client's.
    headers: tuple[tuple[bytes, Secret], ...]
    uses_own_key: bool
    forward_client_auth: bool | None  # None: as the profile and the route say
    retry_statuses: frozenset[int]
    limits: Limits
    tls: TLS
    max_concurrent: int | None
    requests_per_minute: int  # 0 is no limit
    models: tuple[ListedModel, ...]
    # Case-folded name -> name as the endpoint spells it; in a snapshot also the names its models have elsewhere.
    model_names: Mapping[str, str] = field(default_factory=dict)
    # Its own names of models that would have to be loaded first, where its kind loads on demand and tells.
    cold: frozenset[str] = frozenset()
    server_version: str = ""
    # Why the endpoint cannot be used as configured (an unset variable, say); empty when it can.
    config_problem: str = ""
    maintenance: Window | None = None
    drain_then_disable: bool = False
    native_anthropic: NativeAnthropic | None = None  # None: Messages requests are translated

    def takes_traffic(self, now: float) -> bool:
        """Whether status and operator state allow new requests at a moment."""
        return self.status in ROUTABLE and self.state_at(now) is OperatorState.ACTIVE

    def state_at(self, now: float) -> OperatorState:
        """The operator state in force at a moment: windows begin and end without anybody's edit."""
        return state_now(self.state, self.maintenance, now)

    def is_stale(self, now: float, prober_seen: float) -> bool:
        """Whether the prober has been gone too long for the status to be believed.

        Measured from the later of the planned check and the prober's last sign of life, so that neither
        backoff nor a Retry-After rest counts as silence.
        """
        return now > max(self.next_check, prober_seen) + 3 * self.check_interval


@dataclass(frozen=True, slots=True)
class Alias:
    """A client-facing name and its real models, first choice first."""

    name: str
    targets: tuple[str, ...]
    one_model: bool = False  # the targets are names of one and the same model


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: there is one of each
class Snapshot:
    """Endpoints in a stable order (priority high to low, then name) with what routing asks prepared."""

    revision: int
    built_at: float
    endpoints: tuple[EndpointRecord, ...] = ()
    aliases: Mapping[str, Alias] = field(default_factory=dict)  # by case-folded name
    rules: tuple[Rule, ...] = ()  # enabled ones, in order
    rated: tuple[EndpointRecord, ...] = ()  # those with a limit of requests per minute
    windowed: tuple[EndpointRecord, ...] = ()  # those with a maintenance window
    by_id: Mapping[int, EndpointRecord] = field(default_factory=dict)
    # Prefix (or UNIVERSAL, ANTHROPIC) -> every endpoint of it, whatever its status.
    by_prefix: Mapping[str, tuple[EndpointRecord, ...]] = field(default_factory=dict)
    # (prefix, case-folded model) -> every endpoint of the prefix that lists it.
    by_model: Mapping[tuple[str, str], tuple[EndpointRecord, ...]] = field(default_factory=dict)
    catalogue: Catalogue = NO_CATALOGUE
    # Decisions made of this snapshot that hold for every like request (kept and read by `proxy.settled`).
    settled: dict[tuple[object, ...], Any] = field(default_factory=dict, repr=False)
    # Model lists made of this snapshot (kept and read by `proxy.listings` and `proxy.list_parts`).
    lists: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)


def fold_names(models: Iterable[ListedModel]) -> Mapping[str, str]:
    """Case-folded name -> spelling, with Ollama's `:latest` also reachable without its tag."""
    names: dict[str, str] = {}
    short: dict[str, str] = {}
    for model in models:
        folded = fold_model(model.name)
        names.setdefault(folded, model.name)
        if folded.endswith(":latest"):
            short.setdefault(folded.removesuffix(":latest"), model.name)
    return MappingProxyType({**short, **names})


def build_snapshot(
    revision: int,
    built_at: float,
    endpoints: Iterable[EndpointRecord],
    aliases: Iterable[Alias] = (),
    rules: Iterable[Rule] = (),
    *,
    catalogue: Catalogue | None = None,
) -> Snapshot:
    """Sort the endpoints and prepare the candidate sets of each prefix and model.

    `catalogue` is that of an earlier snapshot of the same models, where there is one.
    """
    aliases = tuple(aliases)
    listed = sorted(endpoints, key=lambda each: (-each.priority, each.name, each.id))
    if catalogue is None:
        catalogue = build_catalogue(listed, {each.name: each.targets for each in aliases if each.one_model})
    ordered = tuple(_with_other_names(each, catalogue.other_names.get(each.id, {})) for each in listed)
    by_prefix: dict[str, tuple[EndpointRecord, ...]] = {UNIVERSAL: ordered, ANTHROPIC: ordered}
    for prefix, profile_name in PREFIXES.items():
        by_prefix[prefix] = tuple(e for e in ordered if prefix_accepts(profile_name, e.backend_type))
    return Snapshot(
        revision=revision,
        built_at=built_at,
        endpoints=ordered,
        aliases=MappingProxyType({fold_model(alias.name): alias for alias in aliases}),
        rules=tuple(rules),
        rated=tuple(each for each in ordered if each.requests_per_minute),
        windowed=tuple(each for each in ordered if each.maintenance is not None),
        by_id=MappingProxyType({each.id: each for each in ordered}),
        by_prefix=MappingProxyType(by_prefix),
        by_model=MappingProxyType(_holders(by_prefix)),
        catalogue=catalogue,
    )


def with_aliases(snapshot: Snapshot, aliases: Iterable[Alias]) -> Snapshot:
    """The snapshot with other aliases, nothing settled yet. Dear: aliases can make one model of several names."""
    own = (replace(each, model_names=fold_names(each.models)) for each in snapshot.endpoints)
    return build_snapshot(snapshot.revision, snapshot.built_at, own, aliases, snapshot.rules)


def _holders(
    by_prefix: Mapping[str, tuple[EndpointRecord, ...]],
) -> dict[tuple[str, str], tuple[EndpointRecord, ...]]:
    """The endpoints of each model by prefix; prefixes with the same members share theirs."""
    found: dict[tuple[str, str], tuple[EndpointRecord, ...]] = {}
    shared: dict[tuple[EndpointRecord, ...], dict[str, tuple[EndpointRecord, ...]]] = {}
    for prefix, members in by_prefix.items():
        holders = shared.get(members)
        if holders is None:
            lists: dict[str, list[EndpointRecord]] = {}
            for endpoint in members:
                for folded in endpoint.model_names:
                    lists.setdefault(folded, []).append(endpoint)
            holders = shared[members] = {folded: tuple(each) for folded, each in lists.items()}
        for folded, each in holders.items():
            found[prefix, folded] = each
    return found


def _with_other_names(endpoint: EndpointRecord, names: Mapping[str, str]) -> EndpointRecord:
    """The endpoint, also reached by the names its models have elsewhere; its own names win."""
    if names.keys() <= endpoint.model_names.keys():
        return endpoint
    return replace(endpoint, model_names=MappingProxyType({**names, **endpoint.model_names}))


EMPTY = Snapshot(revision=-1, built_at=0.0)
