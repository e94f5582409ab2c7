"""Asks one endpoint for its health and its models; returns results, writes nothing.

probe_endpoint()    never raises: whatever happens is a ProbeResult
discover_models()   raises DiscoveryError when no model list was had
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from endpoints.addressing import join_url
from endpoints.asking import AskError, ProbeTarget, Reply, ask
from endpoints.detection import detect_type, seconds_for
from endpoints.enriching import add_details
from endpoints.failures import (
    DoorError,
    FirstByteTimeout,
    IdleTimeout,
    NotConnected,
    NotConnectedReason,
    TotalTimeout,
)
from endpoints.health import Outcome, ProbeResult, parse_retry_after
from endpoints.listed import ListedModel
from endpoints.model_lists import ModelList, ModelListError, decode_json, is_listed, read_model_list
from endpoints.profiles import AUTO, ListFormat, Profile
from endpoints.transport import Transport

LONGEST_HEALTH = 64 * 1024
LONGEST_LIST = 10 * 1024 * 1024
MOST_MODELS = 10_000
DETAILS_SHARE = 0.8  # of the time left after the list; the list stands when they come late
RETRY_PAUSES = (0.1, 0.2)  # seconds before the second and third try of one probe
OPENAI_LIST_PATH = "/v1/models"
LOADING_TYPE = "unavailable_error"  # llama.cpp's error type while its model is being loaded

_TIMEOUTS = (FirstByteTimeout, IdleTimeout, TotalTimeout)
# Reasons another try within the same probe cannot change.
_SETTLED = frozenset(
    {
        NotConnectedReason.FORBIDDEN_ADDRESS,
        NotConnectedReason.TLS,
        NotConnectedReason.TIMEOUT,
        NotConnectedReason.LOCAL,
    }
)
_CONNECT_OUTCOMES = {
    NotConnectedReason.FORBIDDEN_ADDRESS: Outcome.MISCONFIGURED,
    NotConnectedReason.TIMEOUT: Outcome.TIMEOUT,
    NotConnectedReason.LOCAL: Outcome.FAULT,
    NotConnectedReason.NO_FREE_CONNECTION: Outcome.FAULT,
}


class DiscoveryError(Exception):
    """No model list was had; `misfit` says that something answered, but not as this kind of server does."""

    def __init__(self, text: str, *, misfit: bool = False) -> None:
        super().__init__(text)
        self.misfit = misfit


@dataclass(frozen=True, slots=True)
class Discovery:
    """The models an endpoint lists, filtered; the kind it turned out to be when that had to be asked again."""

    models: tuple[ListedModel, ...]
    detected_type: str = ""
    version: str = ""  # of the server, where it tells
    note: str = ""  # what of the list was left out


async def probe_endpoint(target: ProbeTarget, door: Transport, now: float, *, detect: bool = False) -> ProbeResult:
    """Ask once for the health (a broken connection gets two quick retries), within `check_timeout` in all.

    `detect` asks an endpoint of type auto for its kind too, and then for its health in that kind's way.
    """
    result = await _bounded_probe(target, target.profile, door, now)
    if target.backend_type != AUTO or result.outcome is not Outcome.ANSWERED:
        return result
    # Refused requests say nothing of the kind; a 404 may mean that another kind has moved in.
    if result.status_code in {401, 403, 429} or not (detect or result.status_code == 404):
        return result
    kind = await detect_type(target, door, timeout=seconds_for(target))
    profile = target.profile_of(kind)
    if profile.health_path != target.profile.health_path:
        result = await _bounded_probe(target, profile, door, now)
    return replace(result, detected_type=kind)


async def _bounded_probe(target: ProbeTarget, profile: Profile, door: Transport, now: float) -> ProbeResult:
    if target.problem:
        return ProbeResult(Outcome.MISCONFIGURED, error=target.problem)
    try:
        async with asyncio.timeout(target.check_timeout):
            reply = await _ask_patiently(target, _health_url(target, profile), door)
    except TimeoutError:
        return ProbeResult(Outcome.TIMEOUT, error=f"It did not answer within {target.check_timeout:g} s.")
    except AskError as error:
        return ProbeResult(Outcome.MISCONFIGURED, error=str(error))
    except DoorError as error:
        return ProbeResult(_outcome_of(error), error=str(error))
    return ProbeResult(
        Outcome.ANSWERED,
        status_code=reply.status,
        latency_ms=reply.latency_ms,
        retry_after=parse_retry_after(reply.headers.get("retry-after", ""), now),
        loading=reply.status == 503 and _says_loading(reply),
    )


async def _ask_patiently(target: ProbeTarget, url: str, door: Transport) -> Reply:
    """Ask up to three times while connections fail at once; one lost packet or restart is no outage."""
    for pause in RETRY_PAUSES:
        try:
            return await ask(target, url, door, timeout=target.check_timeout, longest=LONGEST_HEALTH)
        except DoorError as error:
            if isinstance(error, _TIMEOUTS) or (isinstance(error, NotConnected) and error.reason in _SETTLED):
                raise
        await asyncio.sleep(pause)
    return await ask(target, url, door, timeout=target.check_timeout, longest=LONGEST_HEALTH)


def _outcome_of(error: DoorError) -> Outcome:
    if isinstance(error, NotConnected):
        return _CONNECT_OUTCOMES.get(error.reason, Outcome.UNREACHABLE)
    return Outcome.TIMEOUT if isinstance(error, _TIMEOUTS) else Outcome.UNREACHABLE


def _says_loading(reply: Reply) -> bool:
    """Whether a 503 is llama.cpp's "not yet": `{"error": {"type": "unavailable_error", ...}}`.

    The error's type is judged, not its message; other servers' 503 says nothing about loading.
    """
    try:
        document = decode_json(reply.body)
    except ModelListError:
        return False
    error = document.get("error") if isinstance(document, dict) else None
    return isinstance(error, dict) and error.get("type") == LOADING_TYPE


def _health_url(target: ProbeTarget, profile: Profile) -> str:
    if target.health_check_url:
        return join_url(target.url, target.health_check_url)
    return target.own_url(profile.health_path)


async def discover_models(target: ProbeTarget, door: Transport, *, timeout: float) -> Discovery:
    """The models of an endpoint within `timeout` seconds, filtered by its patterns. Raises DiscoveryError."""
    if target.problem:
        raise DiscoveryError(target.problem)
    try:
        async with asyncio.timeout(timeout):
            discovery = await _discover(target, door, timeout)
    except TimeoutError as error:
        raise DiscoveryError(f"The model list did not come within {timeout:g} s.") from error
    except (AskError, DoorError) as error:
        raise DiscoveryError(str(error)) from error
    if len(discovery.models) > MOST_MODELS:
        raise DiscoveryError(f"It lists more than {MOST_MODELS} models: choose some with include patterns.")
    return discovery


async def _discover(target: ProbeTarget, door: Transport, timeout: float) -> Discovery:
    began = time.monotonic()
    try:
        found, profile, kind = await _list_models(target, target.profile, door, timeout), target.profile, ""
    except DiscoveryError as error:
        if target.backend_type != AUTO or not error.misfit:
            raise
        kind = await detect_type(target, door, timeout=min(timeout, seconds_for(target)))
        if not kind or target.profile_of(kind) is target.profile:
            raise
        profile = target.profile_of(kind)
        found = await _list_models(target, profile, door, timeout)
    left = timeout - (time.monotonic() - began)
    wanted = tuple(each for each in found.models if is_listed(each.name, target.include, target.exclude))
    details = await add_details(target, profile, wanted, door, timeout=left * DETAILS_SHARE)
    return Discovery(details.models, kind, details.version, found.note)


async def _list_models(target: ProbeTarget, profile: Profile, door: Transport, timeout: float) -> ModelList:
    """Ask each place a list may be in turn; the last one's failure is the one that counts."""
    places = _list_places(target, profile)
    for url, list_format in places[:-1]:
        try:
            return await _read_list(target, url, list_format, door, timeout)
        except DiscoveryError as error:
            if not error.misfit:
                raise
    url, list_format = places[-1]
    return await _read_list(target, url, list_format, door, timeout)


def _list_places(target: ProbeTarget, profile: Profile) -> list[tuple[str, ListFormat]]:
    """Where the models are listed and in whose shape; older versions of a kind have only the OpenAI list."""
    if target.model_url:
        return [(join_url(target.url, target.model_url), profile.list_format)]
    places = [(target.own_url(profile.models_path), profile.list_format)]
    if profile.models_path != OPENAI_LIST_PATH:
        places.append((target.own_url(OPENAI_LIST_PATH), ListFormat.OPENAI))
    return places


async def _read_list(
    target: ProbeTarget, url: str, list_format: ListFormat, door: Transport, timeout: float
) -> ModelList:
    reply = await ask(target, url, door, timeout=timeout, longest=LONGEST_LIST)
    if reply.status != 200:
        raise DiscoveryError(f"The model list answers HTTP {reply.status}.", misfit=reply.status == 404)
    if not reply.whole:
        raise DiscoveryError("The model list is larger than 10 MiB.")
    try:
        return read_model_list(list_format, reply.body)
    except ModelListError as error:
        raise DiscoveryError(str(error), misfit=True) from error
