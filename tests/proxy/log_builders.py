"""Finished records and rows of the request log for tests, with a time of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy.journal import Keys, write_rows
from proxy.record import AttemptNote, Outcome, RequestRecord
from proxy.routing import Action, Decision
from tests.proxy.builders import make_endpoint

# An hour begins here.
START = 1_750_003_200.0
GPU = make_endpoint("gpu-1", "vllm")
CPU = make_endpoint("cpu-1", "ollama")


def make_record(at: float = START, **changes: Any) -> RequestRecord:
    """A request that came and ended at `at`."""
    values: dict[str, Any] = {
        "request_id": "r-1", "at": at, "started": 0.0, "method": "POST", "path": "/olla/openai/v1/chat",
        "prefix": "openai", "client": "10.0.0.1", "peer": "10.0.0.1", "model": "m", "sent_model": "m",
        "request_bytes": 100, "response_bytes": 1000, "status": 200, "first_byte": 0.0, "seconds": 0.0,
        "outcome": Outcome.SUCCESS, "decision": Decision(Action.ROUTED, "strict", "model_found", ((GPU,),)),
    }  # fmt: skip
    endpoint = changes.pop("endpoint", GPU)
    record = RequestRecord(**{**values, **changes})
    if endpoint is not None:
        note = AttemptNote(endpoint, 0.0, seconds=record.seconds, status=record.status, verdict="good")
        record.attempts, record.answered = [note], note
    return record


def make_traffic(count: int, begin: float, end: float) -> Iterator[RequestRecord]:
    """Requests spread evenly over a time: ten models, two endpoints, 200 clients, one in a hundred goes wrong."""
    bad = [Outcome.BROKEN, Outcome.BACKEND_ERROR, Outcome.REJECTED, Outcome.CLIENT_GONE]
    decision = Decision(Action.ROUTED, "strict", "model_found", ((GPU, CPU),))
    for number in range(count):
        yield make_record(
            begin + (end - begin) * number / count,
            request_id=f"r-{number}",
            model=f"model-{number % 10}",
            client=f"10.0.{number % 20}.{number % 10}",
            endpoint=CPU if number % 3 == 0 else GPU,
            outcome=bad[number // 100 % 4] if number % 100 == 99 else Outcome.SUCCESS,
            decision=decision,
            seconds=0.25,
            stream=number % 2 == 0,
        )


def fill(records: Iterator[RequestRecord], batch: int = 5000) -> int:
    """Write records as the journal does."""
    keys, written, some = Keys(), 0, []
    for record in records:
        some.append(record)
        if len(some) == batch:
            written += write_rows(some, keys)
            some = []
    return written + (write_rows(some, keys) if some else 0)
