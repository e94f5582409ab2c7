"""The OpenAI dialect: the paths, shapes and errors of OpenAI's API reference."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from olla_site.demo import media
from olla_site.demo.openai_chat import MAX_CHOICES, chat, complete
from olla_site.demo.state import DemoState, RefusalError, read_json
from olla_site.demo.wire import Answer, Request
from olla_site.demo.words import count_tokens

Handler = Callable[[DemoState, Request, Answer], Awaitable[None]]

CREATED = 1_700_000_000
_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def build_error(refusal: RefusalError) -> dict[str, Any]:
    """OpenAI's error object."""
    message = refusal.message
    if refusal.code == "model_not_found":
        message = f"The model `{message}` does not exist on this demo backend."
    param = "model" if refusal.code == "model_not_found" else None
    kind = "invalid_request_error" if refusal.status < 500 else "api_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": refusal.code}}


async def list_models(state: DemoState, _: Request, answer: Answer) -> None:
    """GET /v1/models"""
    await answer.send_json(200, {"object": "list", "data": [_build_model(name) for name in state.models]})


async def show_model(state: DemoState, request: Request, answer: Answer) -> None:
    """GET /v1/models/{id}"""
    name = request.path.removeprefix("/v1/models/")
    await answer.send_json(200, _build_model(state.find_model(name)))


async def embed(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /v1/embeddings: floats, or base64 of 32-bit floats when `encoding_format` says so."""
    body = read_json(request)
    model = state.find_model(body.get("model"))
    given = body.get("input", "")
    # A list of numbers is one input of tokens; a list of anything else is many inputs.
    many = isinstance(given, list) and not all(isinstance(each, int) for each in given)
    inputs = [each if isinstance(each, str) else json.dumps(each) for each in (given if many else [given])]
    vectors = [media.build_vector(text, int(body.get("dimensions") or media.DIMENSIONS)) for text in inputs]
    as_text = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": media.encode_vector(vector) if as_text else vector}
        for index, vector in enumerate(vectors)
    ]
    tokens = count_tokens(inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    await answer.send_json(200, {"object": "list", "data": data, "model": model, "usage": usage})


async def draw(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /v1/images/generations"""
    body = read_json(request)
    prompt = str(body.get("prompt", ""))
    if body.get("model") is not None:
        state.find_model(body["model"])
    images = []
    for index in range(min(max(int(body.get("n") or 1), 1), MAX_CHOICES)):
        encoded = base64.b64encode(media.build_png(f"{prompt}|{index}")).decode()
        content = (
            {"url": f"data:image/png;base64,{encoded}"}
            if body.get("response_format") == "url"
            else {"b64_json": encoded}
        )
        images.append({**content, "revised_prompt": f"[demo backend] {prompt}"})
    await answer.send_json(200, {"created": int(time.time()), "data": images})


async def transcribe(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /v1/audio/transcriptions and /v1/audio/translations: reports size and SHA-256 of the file."""
    try:
        parts = media.parse_multipart(request.header("content-type"), request.body)
    except ValueError as error:
        raise RefusalError(400, str(error)) from error
    fields = {part.name: part.content.decode("utf-8", "replace") for part in parts if not part.filename}
    file = next((part for part in parts if part.name == "file"), None)
    if file is None:
        raise RefusalError(400, "the file is missing")
    state.find_model(fields.get("model"))
    digest = hashlib.sha256(file.content).hexdigest()
    text = f"[demo backend] received {file.filename}: {len(file.content)} bytes, SHA-256 {digest}"
    if fields.get("response_format") == "text":
        await answer.send(200, f"{text}\n".encode(), "text/plain; charset=utf-8")
        return
    report = {"filename": file.filename, "bytes": len(file.content), "sha256": digest}
    await answer.send_json(200, {"text": text, "demo": report})


async def speak(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /v1/audio/speech: a tone as WAV, streamed in pieces."""
    body = read_json(request)
    state.find_model(body.get("model"))
    sound = media.build_wav(str(body.get("input", "")))
    await answer.start(200, "audio/wav")
    with state.generation("speech") as run:
        for start in range(0, len(sound), 4096):
            await run.step()
            await answer.write(sound[start : start + 4096])
    await answer.finish()


async def moderate(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /v1/moderations: flags nothing but the word "violence"."""
    body = read_json(request)
    given = body.get("input", "")
    texts = given if isinstance(given, list) else [given]
    results = []
    for text in texts:
        flags = {name: name == "violence" and "violence" in str(text).lower() for name in _CATEGORIES}
        scores = {name: 0.99 if flag else 0.01 for name, flag in flags.items()}
        results.append({"flagged": any(flags.values()), "categories": flags, "category_scores": scores})
    model = str(body.get("model") or state.models[0])
    await answer.send_json(200, {"id": state.next_id("modr"), "model": model, "results": results})


async def health(_: DemoState, __: Request, answer: Answer) -> None:
    """GET /health"""
    await answer.send_json(200, {"status": "ok", "demo": True})


def _build_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "demo-backend"}


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/health"): health,
    ("GET", "/v1/models"): list_models,
    ("POST", "/v1/chat/completions"): chat,
    ("POST", "/v1/completions"): complete,
    ("POST", "/v1/embeddings"): embed,
    ("POST", "/v1/images/generations"): draw,
    ("POST", "/v1/audio/transcriptions"): transcribe,
    ("POST", "/v1/audio/translations"): transcribe,
    ("POST", "/v1/audio/speech"): speak,
    ("POST", "/v1/moderations"): moderate,
}
