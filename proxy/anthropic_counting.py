"""count_tokens: the number an endpoint's own tokenizer gives, else an estimate.

The endpoint is chosen as for a message. Counting never fails a request: whatever goes wrong, and whatever takes
longer than the setting allows, ends in the estimate.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from msgspec.structs import replace

from endpoints import loading
from endpoints.conf import conf
from endpoints.snapshot import EndpointRecord
from endpoints.transport import DoorError
from proxy.answering import UnfitError
from proxy.anthropic_dialect import native_path, native_support
from proxy.anthropic_translated import MAX_ERROR_BODY, MessagesCall, Translated
from proxy.attempts import Verdict, judge_status
from proxy.inbound import Inbound
from proxy.live import live, plan
from proxy.reading import read_bounded
from proxy.routing import route
from proxy.selection import Policy, choose_endpoint
from proxy.token_memory import count_key
from proxy.upstream import door, failure_word
from translation.errors import TranslationError
from translation.mode import FallbackReason
from translation.token_count import (
    CountSource,
    Tokenizer,
    build_llamacpp_template,
    build_llamacpp_tokenize,
    build_vllm_tokenize,
    measure,
    parse_count,
    tokenizer_for,
)

Count = tuple[int, CountSource, EndpointRecord | None]


class _NoCountError(Exception):
    """The endpoint did not give a number."""


async def count_tokens(call: MessagesCall) -> Count:
    """How many tokens the request has, where the number is from, and which endpoint gave it.

    Raises TranslationError when even an estimate is impossible.
    """
    found = _choose(call)
    tokens, model = live.anthropic.tokens, call.request.model
    if found is not None:
        key = count_key(found[0].id, found[1] or model, call.inbound.body)
        known = tokens.recall(key, time.monotonic())
        if known is not None:
            return *known, found[0]
        with suppress(DoorError, UnfitError, TranslationError, _NoCountError, TimeoutError):
            async with asyncio.timeout(conf().translators_anthropic_count_timeout):
                number = await _ask(call, *found)
                tokens.keep(key, number, time.monotonic())
                return *number, found[0]
    source = CountSource.LEARNED if tokens.knows(model) else CountSource.ESTIMATE
    size = await live.anthropic.pacer.take(measure(call.request))
    return size.estimate(tokens.ratio(model)), source, None


def _choose(call: MessagesCall) -> tuple[EndpointRecord, str | None] | None:
    """An endpoint that would answer the message and can count."""
    if not call.request.model or not call.request.messages:
        return None
    decision = call.inbound.record.decision = route(loading.current(), call.inbound, live.view(), plan())
    for tier in decision.tiers:
        able = [each for each in tier if _tokenizer(each) is not Tokenizer.NONE]
        if able:
            endpoint = choose_endpoint(Policy(conf().load_balancer), able, live.in_flight, live.next_cursor(able))
            return endpoint, decision.sent_names.get(endpoint.id)
    return None


def _tokenizer(endpoint: EndpointRecord) -> Tokenizer:
    found = tokenizer_for(endpoint.profile.name)
    if found is Tokenizer.NATIVE and not native_support(endpoint).enabled:
        return Tokenizer.NONE
    return found


async def _ask(call: MessagesCall, endpoint: EndpointRecord, model: str | None) -> tuple[int, CountSource]:
    tokenizer = _tokenizer(endpoint)
    if tokenizer is Tokenizer.NATIVE:
        path = f"{native_path(endpoint)}/count_tokens"
        body = await _post(replace(call.inbound, path=path, decoded_path=path), endpoint, model)
        return parse_count(body), CountSource.NATIVE
    chat = Translated(call, endpoint, model, FallbackReason.NONE)
    await chat.prepare()
    if tokenizer is Tokenizer.VLLM:
        body = await _post(_aim(chat.inbound, "/tokenize", build_vllm_tokenize(chat.body)), endpoint)
        return parse_count(body), CountSource.TOKENIZE
    template = _aim(chat.inbound, "/apply-template", build_llamacpp_template(chat.body))
    prompt = build_llamacpp_tokenize(await _post(template, endpoint))
    body = await _post(_aim(chat.inbound, "/tokenize", prompt), endpoint)
    return parse_count(body), CountSource.TOKENIZE


def _aim(inbound: Inbound, path: str, body: bytes) -> Inbound:
    return replace(inbound, path=path, decoded_path=path, body=body)


async def _post(inbound: Inbound, endpoint: EndpointRecord, model: str | None = None) -> bytes:
    """One request, in flight and judged as any other. Raises DoorError, _NoCountError."""
    slot = live.queue.try_take(endpoint.id)
    attempt = live.open_attempt(endpoint, slot) if slot is not None else None
    if attempt is None:
        raise _NoCountError
    inbound.record.attempts.append(attempt.note)
    verdict, answer = Verdict.UNKNOWN, None
    try:
        answer = await door().send(endpoint, inbound, model)
        attempt.note.status = answer.status
        body = await read_bounded(answer, MAX_ERROR_BODY)
        verdict = judge_status(answer.status)
    except DoorError as error:
        attempt.note.error = failure_word(error)
        verdict = Verdict.FAILED
        raise
    finally:
        attempt.close(verdict)
        if answer is not None:
            answer.abandon()
    if answer.status != 200:
        raise _NoCountError
    return body


__all__ = ["Count", "count_tokens"]
