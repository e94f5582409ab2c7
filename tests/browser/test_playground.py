"""The playground in a browser, through the real server to a scripted backend."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.chromium import find_package
from tests.browser.desk import fill_fleet, keep_picture, open_page
from tests.browser.test_accessibility import RUN
from tests.fakes import Conn, Cut, Received, Reply, ScriptedBackend, Step, json_reply, ndjson_reply, sse_reply
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

EVIL = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """One piece of a streamed chat completion."""
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def chat_reply(*pieces: dict[str, Any], finish: str = "stop") -> Reply:
    """A streamed chat completion with its usage."""
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 24}}
    return sse_reply([*(chunk(piece) for piece in pieces), chunk({}, finish), usage], gap=0.002)


def event(name: str, **fields: Any) -> bytes:
    """One event of Anthropic's stream."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


MESSAGE = Reply(
    200,
    [(b"Content-Type", b"text/event-stream")],
    chunks=[
        event("message_start", message={"usage": {"input_tokens": 7, "output_tokens": 1}}),
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Let me think."}),
        event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Message from "}),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Anthropic's API"}),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 12}),
        event("message_stop"),
    ],
)
GENERATED = ndjson_reply(
    [
        {"response": "Generated ", "done": False},
        {"response": "by Ollama", "done": False},
        {
            "response": "",
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 5,
            "eval_count": 40,
            "eval_duration": 10**9,
        },
    ]
)
TOOL_CALL = {"index": 0, "id": "call_7", "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}

FLEET = [("one", 0, "vllm", "alpha-7b"), ("two", 1, "vllm", "beta-70b"), ("raw", 0, "ollama", "gamma:8b")]


class Backend:
    """Answers by the last words of the prompt; keeps the connections of streams that never end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.endless: list[Conn] = []
        self.server = ScriptedBackend(self._serve)

    async def _serve(self, conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            if "endless" in self._last(request):
                self.endless.append(conn)
                conn.write(Reply(200, [(b"Content-Type", b"text/event-stream")], chunks=()).head())
                data = f"data: {json.dumps(chunk({'content': 'and on '}))}\n\n".encode()
                conn.write(b"%x\r\n%b\r\n" % (len(data), data))
                await conn.gone.wait()
                return
            await conn.play(self.choose(request), request)

    def choose(self, request: Received) -> Step:
        """The answer to a request."""
        if request.path.endswith("/messages"):
            return MESSAGE
        if request.path.endswith("/api/generate"):
            return GENERATED
        if request.path.endswith("/embeddings"):
            return json_reply({"data": [{"embedding": [0.25, -0.5] * 192}], "usage": {"prompt_tokens": 3}})
        return self._chat(self._last(request))

    @staticmethod
    def _last(request: Received) -> str:
        return json.dumps(request.json().get("messages", [""])[-1])

    def _chat(self, last: str) -> Step:
        if "broken stream" in last:
            return sse_reply(
                [chunk({"content": "Half an "}), {"error": {"message": "GPU on fire", "code": "gpu_fault"}}]
            )
        if "cut off" in last:
            head = Reply(200, [(b"Content-Type", b"text/event-stream")], chunks=()).head()
            data = f"data: {json.dumps(chunk({'content': 'Half '}))}\n\n".encode()
            return Cut([head, b"%x\r\n%b\r\n" % (len(data), data), 0.05])
        if "refuse" in last:
            return json_reply({"error": {"message": "context too long", "code": "context_length"}}, 400)
        if "hostile" in last:
            return chat_reply({"reasoning_content": EVIL}, {"content": EVIL}, {"tool_calls": [
                {"index": 0, "id": "x", "function": {"name": EVIL, "arguments": EVIL}}]})  # fmt: skip
        if "use the tool" in last:
            return chat_reply({"tool_calls": [TOOL_CALL]}, finish="tool_calls")
        words = [f"Hello from {self.name}. ", "Streaming ", "it ", "is."]
        return chat_reply({"reasoning_content": "A greeting."}, *({"content": word} for word in words))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backends() -> AsyncIterator[list[Backend]]:
    made = [Backend("one"), Backend("two")]
    async with made[0].server, made[1].server:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(backends: list[Backend]) -> AsyncIterator[LiveServer]:
    with LiveServer() as running:
        rows = [
            {"name": name, "url": backends[place].server.url, "backend_type": kind, "models": [model, "shared"],
             "health": {"status": "healthy"}}
            for name, place, kind, model in FLEET
        ]  # fmt: skip
        await fill_fleet(running, rows)
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, server: LiveServer, state: Any) -> AsyncIterator[Page]:
    async with open_page(browser, server, state=state, strict=False) as opened:
        await opened.goto(f"{server.url}/playground/?model=alpha-7b")
        yield opened


async def send(page: Page, prompt: str) -> None:
    """Type and send by the keyboard."""
    await page.locator("#prompt").fill(prompt)
    await page.locator("#prompt").press("Control+Enter")


async def ended(turn: Locator, state: str = "done") -> None:
    """Wait until an answer has ended this way."""
    await expect(turn).to_have_attribute("data-state", state, timeout=20_000)


async def run_command(*argv: str) -> str:
    """What a command prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_it_streams_a_chat_and_remembers_it(page, backends):
    await send(page, "Say hello.")
    turn = page.locator(".turn").first
    await ended(turn)
    await expect(turn.locator("[data-p=text]")).to_have_text("Hello from one. Streaming it is.")
    await expect(turn.locator("[data-p=thinking-text]")).to_have_text("A greeting.")
    await expect(turn.locator("[data-p=tokens]")).to_have_text("9 → 24")
    await expect(turn.locator("[data-p=rate]")).to_contain_text("tok/s")
    await expect(turn.locator("[data-p=first]")).not_to_have_text("\u2013")
    await expect(page.locator("#prompt")).to_have_value("")
    await send(page, "And again.")
    await ended(page.locator(".turn").nth(1))
    sent = backends[0].server.requests[-1].json()
    assert [each["role"] for each in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["stream_options"] == {"include_usage": True}
    assert "temperature" not in sent
    await page.get_by_role("button", name="Clear the conversation").click()
    await expect(page.locator(".turn")).to_have_count(0)


async def test_it_speaks_anthropics_messages(page, backends):
    await page.get_by_role("radio", name="Anthropic messages").check()
    await page.get_by_label("System prompt").fill("Be brief.")
    await send(page, "Say hello.")
    turn = page.locator(".turn").first
    await ended(turn)
    await expect(turn.locator("[data-p=text]")).to_have_text("Message from Anthropic's API")
    await expect(turn.locator("[data-p=thinking-text]")).to_have_text("Let me think.")
    await expect(turn.locator("[data-p=tokens]")).to_have_text("7 → 12")
    sent = backends[0].server.requests[-1]
    assert sent.path == "/v1/messages"
    assert (sent.json()["system"], sent.json()["max_tokens"]) == ("Be brief.", 1024)


async def test_it_speaks_ollamas_generate(page, backends):
    await page.get_by_role("radio", name="Ollama generate").check()
    await page.locator("#model-a").fill("gamma:8b")
    await page.get_by_label("Temperature").fill("0.5")
    await page.get_by_label("Stop", exact=True).fill("END\n\\n\\n")
    await send(page, "Say hello.")
    turn = page.locator(".turn").first
    await ended(turn)
    await expect(turn.locator("[data-p=text]")).to_have_text("Generated by Ollama")
    await expect(turn.locator("[data-p=rate]")).to_have_text("40.0 tok/s")  # as the backend measured
    assert backends[0].server.requests[-1].json()["options"] == {"temperature": 0.5, "stop": ["END", "\n\n"]}


async def test_it_embeds(page):
    await page.get_by_role("radio", name="Embeddings").check()
    await expect(page.get_by_label("System prompt")).to_be_hidden()
    await send(page, "A sentence.")
    turn = page.locator(".turn").first
    await ended(turn)
    await expect(turn.locator("[data-p=text]")).to_contain_text("384 dimensions")
    await expect(turn.locator("[data-p=text]")).to_contain_text("[0.2500, -0.5000, ")


async def test_it_stops_and_the_backend_is_freed(page, backends):
    await send(page, "Go on, endless.")
    turn = page.locator(".turn").first
    await expect(turn.locator("[data-p=text]")).to_have_text("and on ", timeout=20_000)
    stream = backends[0].endless[-1]
    await page.keyboard.press("Escape")
    await ended(turn, "stopped")
    await asyncio.wait_for(stream.gone.wait(), 20)
    await expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    await send(page, "Say hello.")
    await ended(page.locator(".turn").nth(1))


@pytest.mark.parametrize(
    ("prompt", "words", "text"),
    [
        ("broken stream", "GPU on fire (gpu_fault)", "Half an "),
        ("cut off", "", "Half "),
        ("refuse", "HTTP 400: context too long (context_length)", ""),
    ],
)
async def test_it_tells_what_went_wrong_and_keeps_the_prompt(page, prompt, words, text):
    await send(page, prompt)
    turn = page.locator(".turn").first
    await ended(turn, "failed")
    await expect(turn.locator("[data-p=error]")).to_be_visible()
    await expect(turn.locator("[data-p=error]")).to_contain_text(words)
    await expect(turn.locator("[data-p=text]")).to_have_text(text)
    await expect(page.locator("#prompt")).to_have_value(prompt)


async def test_it_tells_that_the_server_is_gone(page):
    await page.route("**/olla/**", lambda route: route.abort())
    await send(page, "Say hello.")
    await expect(page.locator("[data-p=error]").first).to_have_text("The server cannot be reached.")
    await expect(page.locator("#prompt")).to_have_value("Say hello.")


async def test_it_marks_every_wrong_field_and_sends_nothing(page, backends):
    before = len(backends[0].server.requests)
    await page.locator("#model-a").fill("")
    await page.get_by_label("Temperature").fill("warm")
    await page.get_by_text("Tools", exact=True).click()
    await page.get_by_label("Tools as JSON").fill('[{"type": "function", "function": {}}]')
    await page.locator("#prompt").press("Control+Enter")
    await expect(page.locator("#model-a")).to_be_focused()
    for name, words in (
        ("model-a", "Choose a model"), ("temperature", "not “warm”"), ("tools", "Tool 1 needs a name"),
        ("prompt", "Write a prompt"),
    ):  # fmt: skip
        await expect(page.locator(f"#{name}-error")).to_contain_text(words)
    assert await page.get_by_label("Temperature").input_value() == "warm"
    assert len(backends[0].server.requests) == before


async def test_it_asks_two_at_once_and_stops_both(page, backends):
    await page.get_by_role("button", name="Compare two").click()
    await page.locator("#model-b").fill("beta-70b")
    await send(page, "Say hello.")
    for column, name in (("a", "one"), ("b", "two")):
        turn = page.locator(f"[data-column={column}] .turn").first
        await ended(turn)
        await expect(turn.locator("[data-p=text]")).to_contain_text(f"Hello from {name}.")
    await send(page, "endless")
    for column in "ab":
        await expect(page.locator(f"[data-column={column}] .turn").nth(1).locator("[data-p=text]")).to_have_text(
            "and on "
        )
    await page.get_by_role("button", name="Stop", exact=True).click()
    for backend in backends:
        await asyncio.wait_for(backend.endless[-1].gone.wait(), 20)


async def test_it_pins_an_endpoint_and_shows_the_trace(page, backends):
    await page.locator("#model-a").fill("shared")
    await page.locator("#pin-a").fill("two")
    await page.get_by_label("Show the decision trace").check()
    for turn_number in range(2):  # the second with the token of the first
        await send(page, "Say hello.")
        turn = page.locator(".turn").nth(turn_number)
        await ended(turn)
        await expect(turn.locator("[data-p=served]")).to_have_text("two")
    await turn.locator(".wire summary").click()
    await turn.get_by_role("tab", name="Trace").click()
    await expect(turn.locator("[data-p=trace-list]")).to_contain_text("pin")
    await turn.get_by_role("tab", name="Headers").click()
    await expect(turn.locator("[data-p=headers-list]")).to_contain_text("x-olla-endpoint")
    address = await turn.get_by_role("link", name="The request in the log").get_attribute("href")
    assert address is not None
    assert address.startswith("/requests/id/")
    await page.locator("#model-a").fill("alpha-7b")  # which the pinned one has not
    await send(page, "Say hello.")
    await ended(page.locator(".turn").nth(2), "failed")
    await expect(page.locator("[data-p=error]").nth(2)).to_contain_text("HTTP 503")


async def test_it_says_when_the_session_is_another(page, backends):
    before = len(backends[0].server.requests)
    await page.get_by_label("Show the decision trace").check()
    await page.context.clear_cookies()
    await send(page, "Say hello.")
    await expect(page.locator("[data-p=error]").first).to_contain_text("Reload it", timeout=20_000)
    await expect(page.locator("#prompt")).to_have_value("Say hello.")
    assert len(backends[0].server.requests) == before


async def test_it_shows_raw_frames_and_the_request_as_code(page, server, tmp_path):
    await page.locator("#prompt").fill('It\'s $HOME `here`; "äöü"')
    await page.locator("#prompt").press("Control+Enter")
    turn = page.locator(".turn").first
    await ended(turn)
    await turn.locator(".wire summary").click()
    await turn.get_by_role("tab", name="Frames").click()
    await expect(turn.locator("[data-p=frames-text]")).to_contain_text('data: {"id": "c"')
    await expect(turn.locator("[data-p=frames-text]")).to_contain_text("data: [DONE]")
    await turn.get_by_role("tab", name="Code").click()
    code = await turn.locator("[data-p=code-text]").inner_text()
    made = await run_command("bash", "-c", code)
    assert "Hello from " in made
    await turn.get_by_label("Language").select_option("Python")
    code = await turn.locator("[data-p=code-text]").inner_text()
    made = await run_command(sys.executable, "-c", code)
    assert "Hello from " in made


async def test_it_sends_a_tools_result_back(page, backends):
    await page.get_by_text("Tools", exact=True).click()
    await page.get_by_label("Tools as JSON").fill('[{"name": "get_weather", "input_schema": {"type": "object"}}]')
    await send(page, "use the tool")
    turn = page.locator(".turn").first
    await ended(turn)
    await expect(turn.locator(".call h4")).to_have_text("Tool call: get_weather")
    assert backends[0].server.requests[-1].json()["tools"][0]["function"]["parameters"] == {"type": "object"}
    await turn.get_by_label("Result to send back").fill("12 degrees")
    await page.get_by_role("button", name="Send", exact=True).click()
    await ended(page.locator(".turn").nth(1))
    messages = backends[0].server.requests[-1].json()["messages"]
    assert messages[-1] == {"role": "tool", "tool_call_id": "call_7", "content": "12 degrees"}
    assert messages[-2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Bern"}'


async def test_it_sends_images(page, backends):
    picture = {"name": "dot.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n" + bytes(64)}
    await page.locator("#image").set_input_files([picture, {**picture, "name": "a.txt", "mimeType": "text/plain"}])
    await expect(page.locator("#image-error")).to_contain_text("a.txt is not a PNG")
    await expect(page.locator("#images li")).to_have_count(1)
    await send(page, "What is it?")
    await ended(page.locator(".turn").first)
    part = backends[0].server.requests[-1].json()["messages"][-1]["content"][1]
    assert part["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    await expect(page.locator("#images li")).to_have_count(0)


async def test_it_shows_what_a_hostile_model_says_as_text(page, server):
    await send(page, f"hostile {EVIL}")
    turn = page.locator(".turn").first
    await ended(turn)
    for part in ("text", "thinking-text"):
        await expect(turn.locator(f"[data-p={part}]")).to_have_text(EVIL)
    await expect(turn.locator(".call h4")).to_have_text(f"Tool call: {EVIL}")
    await turn.locator(".wire summary").click()
    for name in ("Headers", "Frames", "Trace", "Code"):
        await turn.get_by_role("tab", name=name).click()
    assert await page.locator(".turn img, .turn script").count() == 0
    await page.goto(f"{server.url}/playground/?model={quote(EVIL)}")
    await expect(page.locator("#model-a")).to_have_value(EVIL)
    assert await page.evaluate("window.pwned") is None


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_is_accessible_and_fits_every_width(browser, server, state, dark):
    axe = (find_package("axe-core") / "axe.min.js").read_text()
    async with open_page(browser, server, state=state, dark=dark) as page:
        await page.goto(f"{server.url}/playground/?model=alpha-7b")
        await send(page, "use the tool")
        await ended(page.locator(".turn").first)
        await page.locator(".turn .wire summary").click()
        await page.get_by_role("button", name="Compare two").click()
        await page.evaluate(axe)
        for width in (360, 1280, 2560):
            await page.set_viewport_size({"width": width, "height": 900})
            assert await page.evaluate(RUN) == []
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await page.evaluate(over) <= 0
            await keep_picture(page, f"playground-{width}-{'dark' if dark else 'light'}")
