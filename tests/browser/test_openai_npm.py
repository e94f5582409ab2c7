"""The openai npm package in a real Chromium, in a page of another origin, against the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page

from tests.browser.chromium import find_package, wait_for
from tests.browser.pages_server import PagesServer
from tests.e2e.seed import seed_database
from tests.fakes import Conn, Reply, ScriptedBackend, json_reply
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

MODEL = "browser-model"
WORDS = ("Streaming ", "is ", "streaming, ", "äöü ", "after all.")
PAGE = """<!doctype html><meta charset="utf-8"><title>An application</title>
<script type="module">
  import OpenAI from "/openai/index.mjs";
  window.OpenAI = OpenAI;
  window.seen = [];
</script>"""
# What every script of these tests starts with: a client as an application in a page makes one.
CLIENT = """
const client = new OpenAI({baseURL: base, apiKey: "x", dangerouslyAllowBrowser: true, maxRetries: 0});
const messages = [{role: "user", content: "Why is the sky blue?"}];
"""


def chunk(text: str, finish: str | None = None) -> bytes:
    """One event of a streamed chat completion."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    event = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


class ChatBackend:
    """Streams one word each time the test says `go`, so that nothing can arrive early or in one piece."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.streams: list[Conn] = []
        self.server = ScriptedBackend(self._serve)

    async def _serve(self, conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            if request.json().get("stream"):
                self.streams.append(conn)
                await self._stream(conn)
            else:
                message = {"role": "assistant", "content": "".join(WORDS)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                answer = {"id": "c1", "object": "chat.completion", "model": MODEL, "choices": [choice]}
                await conn.play(json_reply(answer), request)

    async def _stream(self, conn: Conn) -> None:
        conn.write(Reply(200, [(b"Content-Type", b"text/event-stream")], chunks=()).head())
        for data in [*(chunk(word) for word in WORDS), chunk("", "stop") + b"data: [DONE]\n\n"]:
            if not await self._allowed(conn):
                return
            conn.write(b"%x\r\n%b\r\n" % (len(data), data))
        conn.write(b"0\r\n\r\n")

    async def _allowed(self, conn: Conn) -> bool:
        """Wait for `go`; False when the other side left first."""
        waits = [asyncio.ensure_future(self.go.acquire()), asyncio.ensure_future(conn.gone.wait())]
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in pending:
            each.cancel()
        return waits[0] in done


@dataclass
class Application:
    """A page with the package loaded, and what it talks to."""

    page: Page
    backend: ChatBackend
    server: LiveServer

    async def run(self, script: str) -> Any:
        """Run the body of an async function with a `client` in the page; its result."""
        base = f"{self.server.url}/olla/openai/v1"
        return await self.page.evaluate(f"async (base) => {{{CLIENT}{script}}}", base)

    async def wait_seen(self, count: int) -> list[Any]:
        """Wait until the page has noted `count` things; they are returned."""
        await self.page.wait_for_function("count => window.seen.length >= count", arg=count)
        return list(await self.page.evaluate("window.seen"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[LiveServer, ChatBackend]]:
    data_dir: Path = tmp_path_factory.mktemp("npm-data")
    backend = ChatBackend()
    async with backend.server:
        row = {"name": "gpu-1", "url": backend.server.url, "kind": "openai-compatible", "models": [MODEL]}
        seed_database(data_dir, [row])
        with LiveServer(data_dir=data_dir) as server:
            yield server, backend


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def opened(browser: Browser, world: tuple[LiveServer, ChatBackend]) -> AsyncIterator[Application]:
    """One page for the module: the package is some two hundred files."""
    server, backend = world
    with PagesServer({"/": PAGE}, {"/openai/": find_package("openai")}) as pages:
        context = await browser.new_context()
        yield Application(await open_page(context, pages.port), backend, server)
        await context.close()


async def open_page(context: BrowserContext, port: int) -> Page:
    """The application's page, on another host and another port than the server's: foreign in every sense."""
    page = await context.new_page()
    await page.goto(f"http://localhost:{port}/")
    await page.wait_for_function("window.OpenAI !== undefined")
    return page


@pytest_asyncio.fixture(loop_scope="session")
async def app(opened: Application) -> Application:
    await opened.page.evaluate("window.seen = []")
    return opened


async def test_it_streams_word_by_word_and_shows_the_endpoint(app):
    running = asyncio.ensure_future(
        app.run("""
            const {data, response} = await client.chat.completions
                .create({model: "browser-model", messages, stream: true}).withResponse();
            const endpoint = response.headers.get("x-olla-endpoint");
            for await (const part of data) window.seen.push([part.choices[0].delta.content, performance.now()]);
            return endpoint;
        """)
    )
    for count in range(1, len(WORDS) + 1):
        # The backend has not been told to send the next word yet: what is here came by itself.
        app.backend.go.release()
        seen = await app.wait_seen(count)
        assert [text for text, _ in seen] == list(WORDS[:count])
    app.backend.go.release()
    assert await running == "gpu-1"
    seen = await app.wait_seen(len(WORDS) + 1)
    assert len({moment for _, moment in seen}) > 1


async def test_it_answers_a_plain_call_with_headers_a_page_can_read(app):
    answer = await app.run("""
        const {data, response} = await client.chat.completions
            .create({model: "browser-model", messages}).withResponse();
        return {text: data.choices[0].message.content, headers: Object.fromEntries(response.headers)};
    """)
    assert answer["text"] == "".join(WORDS)
    headers = answer["headers"]
    assert headers["x-olla-endpoint"] == "gpu-1"
    assert headers["x-olla-model"] == MODEL
    assert headers["x-olla-request-id"]
    assert headers["x-olla-response-time"].endswith("ms")


async def test_it_asks_first_and_keeps_the_browsers_own_headers_from_the_backend(app):
    await app.run('await client.chat.completions.create({model: "browser-model", messages});')
    sent = app.backend.server.requests[-1]
    names = {name.decode().lower() for name, _ in sent.headers}
    assert {"x-stainless-lang", "x-stainless-runtime"} <= names  # what made the browser ask first
    assert not names & {"origin", "referer", "cookie"}
    assert not [name for name in names if name.startswith("sec-")]
    # The server writes its log in batches.
    await wait_for(lambda: "olla_site.access: OPTIONS " in app.server.output())


async def test_it_raises_the_packages_own_error_for_an_unknown_model(app):
    error = await app.run("""
        try {
            await client.chat.completions.create({model: "nobody-has-this", messages});
        } catch (error) {
            const id = error.headers.get("x-olla-request-id");
            return {kind: error instanceof OpenAI.NotFoundError, status: error.status, code: error.code, id};
        }
    """)
    assert error["kind"]
    assert (error["status"], error["code"]) == (404, "model_not_found")
    assert error["id"]


async def test_it_lists_models(app):
    listed = await app.run("const page = await client.models.list(); return page.data.map(each => each.id);")
    assert listed == [MODEL]


async def test_it_frees_the_backend_when_the_page_aborts(app):
    running = asyncio.ensure_future(
        app.run("""
            const stream = await client.chat.completions
                .create({model: "browser-model", messages, stream: true});
            for await (const part of stream) {
                window.seen.push(part.choices[0].delta.content);
                stream.controller.abort();
            }
            return "ended";
        """)
    )
    app.backend.go.release()
    await app.wait_seen(1)
    # Nothing else would end it: the backend waits to be told to go on, the product's patience is minutes.
    await asyncio.wait_for(app.backend.streams[-1].gone.wait(), 20)
    assert await running == "ended"


async def test_it_frees_the_backend_when_the_page_is_closed(app):
    other = replace(app, page=await open_page(app.page.context, int(app.page.url.rstrip("/").rsplit(":")[-1])))
    running = asyncio.ensure_future(
        other.run("""
            const stream = await client.chat.completions
                .create({model: "browser-model", messages, stream: true});
            for await (const part of stream) window.seen.push(part.choices[0].delta.content);
        """)
    )
    app.backend.go.release()
    await other.wait_seen(1)
    await other.page.close()
    await asyncio.wait_for(app.backend.streams[-1].gone.wait(), 20)
    await asyncio.gather(running, return_exceptions=True)
