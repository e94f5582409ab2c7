"""Real inference servers behind the product: found out, listed, asked, streamed, translated, left and lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.e2e.real.conftest import Fleet
from tests.e2e.real.processes import ANSWER
from tests.translation.grammar import read_stream

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def openai_client(fleet: Fleet) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fleet.url}/olla/proxy/v1", api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


@pytest.fixture
def anthropic_client(fleet: Fleet) -> Iterator[anthropic.Anthropic]:
    url = f"{fleet.url}/olla/anthropic"
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=60) as opened:
        yield opened


def test_it_finds_out_what_kind_it_is(fleet, real):
    assert fleet.health(real, "detected_type") == real.kind
    assert (fleet.health(real, "status"), fleet.health(real, "models_error")) == ("healthy", "")


def test_it_lists_its_model_with_its_context_length(fleet, real, openai_client):
    assert openai_client.models.retrieve(real.model).id == real.model
    listed = httpx.get(f"{fleet.url}/olla/models/{real.model}", trust_env=False).json()
    assert listed["olla"]["max_context_length"] == 4096


def test_it_answers(fleet, real, openai_client):
    raw = openai_client.chat.completions.with_raw_response.create(model=real.model, messages=HELLO, max_tokens=8)
    answer = raw.parse()
    assert answer.choices[0].message.content is not None
    assert raw.headers["x-olla-endpoint"] == real.name
    assert raw.headers["x-olla-backend-type"] == real.kind
    told = fleet.told(raw.headers["x-olla-request-id"])
    usage = answer.usage
    assert usage is not None
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (
        usage.prompt_tokens, usage.completion_tokens, usage.total_tokens,
    )  # fmt: skip
    assert told["finish_reason"] == answer.choices[0].finish_reason


def test_it_streams_and_reads_the_usage_of_the_stream(fleet, real, openai_client):
    with openai_client.chat.completions.create(
        model=real.model, messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
    ) as stream:
        request_id = stream.response.headers["x-olla-request-id"]
        chunks = list(stream)
    [usage] = [chunk.usage for chunk in chunks if chunk.usage]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    told = fleet.told(request_id)
    assert (told["prompt_tokens"], told["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert told["finish_reason"] in ("stop", "length")


def test_it_speaks_the_messages_api(fleet, real, anthropic_client):
    raw = anthropic_client.messages.with_raw_response.create(model=real.model, messages=HELLO, max_tokens=8)
    answer = raw.parse()
    assert answer.content[0].type == "text"
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.input_tokens > 0
    assert raw.headers["x-olla-mode"] in ("passthrough", "translation")


def test_it_streams_messages_in_sound_grammar(fleet, real):
    body = {"model": real.model, "max_tokens": 8, "messages": HELLO, "stream": True, "temperature": 0}
    answer = httpx.post(f"{fleet.url}/olla/anthropic/v1/messages", json=body, trust_env=False, timeout=60)
    assert answer.status_code == 200
    if answer.headers["x-olla-mode"] == "passthrough":
        # llama.cpp's own: its ids are no message ids, and a first token that is half a character costs the start.
        assert answer.content.rstrip().endswith(b'data: {"type":"message_stop"}')
        return
    stream = read_stream(answer.content)
    assert stream.error is None
    assert stream.message["stop_reason"] in ("end_turn", "max_tokens")


def test_it_counts_tokens(real, anthropic_client):
    assert anthropic_client.messages.count_tokens(model=real.model, messages=HELLO).input_tokens > 0


def test_it_passes_a_refusal_on(fleet, real, openai_client):
    with pytest.raises(openai.APIStatusError) as refused:
        openai_client.chat.completions.create(model=real.model, messages="no list", max_tokens=8)
    assert 400 <= refused.value.status_code < 600
    assert refused.value.response.headers["x-olla-endpoint"] == real.name


def test_it_uses_the_endpoints_own_key(fleet):
    real = fleet.real["litellm"]
    body = {"model": real.model, "messages": HELLO}
    straight = httpx.post(f"{real.url}/v1/chat/completions", json=body, trust_env=False, timeout=60)
    through = httpx.post(f"{fleet.url}/olla/litellm/v1/chat/completions", json=body, trust_env=False, timeout=60)
    # Without a database LiteLLM answers 500 to who has no key.
    assert straight.status_code in (401, 500)
    assert through.status_code == 200
    assert through.json()["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize("path", ["/model/info", "/key/list", "/config/yaml"])
def test_it_keeps_litellms_management_closed(fleet, path):
    answer = httpx.get(f"{fleet.url}/olla/litellm{path}", trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_path")
