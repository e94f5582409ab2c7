"""What llama.cpp's server alone has: slots, times, calls of its own; and one that goes down and comes back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.conftest import list_models, wait_until
from tests.e2e.real.conftest import Fleet
from tests.e2e.real.processes import start_llamacpp
from tests.e2e.real.register import register
from tests.live import LiveServer

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("path", ["/slots", "/slots/0", "/props"])
def test_it_keeps_llamacpps_slots_closed(fleet, path):
    method = "POST" if path == "/props" else "GET"
    answer = httpx.request(method, f"{fleet.url}/olla/llamacpp{path}", trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_path")


def test_it_tells_llamacpps_times(fleet):
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 8}
    answer = httpx.post(f"{fleet.url}/olla/llamacpp/v1/chat/completions", json=body, trust_env=False, timeout=60)
    told = fleet.told(answer.headers["x-olla-request-id"])
    assert told["completion_tokens"] == 8
    assert min(told[name] for name in ("prompt_ms", "generation_ms", "tokens_per_second", "ttft_ms")) > 0


@pytest.mark.parametrize("path", ["/completion", "/tokenize", "/v1/completions"])
def test_it_reaches_llamacpps_own_calls(fleet, path):
    body = {"prompt": "hello", "content": "hello", "n_predict": 4, "max_tokens": 4, "model": "tiny"}
    answer = httpx.post(f"{fleet.url}/olla/llamacpp{path}", json=body, trust_env=False, timeout=60)
    assert answer.status_code == 200


def test_it_tells_of_a_native_llamacpp_stream(fleet):
    body = {"prompt": "hello", "n_predict": 6, "stream": True, "model": "tiny", "ignore_eos": True}
    answer = httpx.post(f"{fleet.url}/olla/llamacpp/completion", json=body, trust_env=False, timeout=60)
    told = fleet.told(answer.headers["x-olla-request-id"])
    assert (told["completion_tokens"], told["finish_reason"]) == (6, "limit")


def test_it_says_that_a_server_is_down_and_takes_it_back(tmp_path):
    real = start_llamacpp(tmp_path)
    data_dir = tmp_path / "data"
    register(data_dir, [{"name": real.name, "url": real.url, "check_interval": 1.0}], {})
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 4}
    try:
        with LiveServer(data_dir=data_dir, args=()) as server:
            fleet = Fleet(server, data_dir, {})
            url = f"{server.url}/olla/proxy/v1/chat/completions"
            wait_until(lambda: "tiny" in list_models(server.url))
            real.stop()
            answers = [httpx.post(url, json=body, trust_env=False, timeout=60) for _ in range(2)]
            assert answers[0].status_code in (502, 503)
            assert (answers[1].status_code, answers[1].json()["error"]["code"]) == (503, "model_unavailable")
            wait_until(lambda: fleet.health(real, "status") == "offline")
            real = start_llamacpp(tmp_path, real.port)
            wait_until(lambda: fleet.health(real, "status") == "healthy")
            wait_until(lambda: httpx.post(url, json=body, trust_env=False, timeout=60).status_code == 200)
    finally:
        real.stop()
