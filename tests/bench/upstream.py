"""A constant upstream for measuring: fixed bytes for each path, nothing computed. Prints its port.

POST /v1/chat/completions   a 1 KB JSON answer; with `"stream":true` in the body 64 SSE chunks
paced streams               X-Pace: <milliseconds> between the chunks
"""

from __future__ import annotations

import asyncio
import gc

TEXT = b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"'
JSON = TEXT + b"x" * 900 + b'"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12}}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nServer: constant\r\n\r\n"
    % len(JSON)
) + JSON
MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","created":1,"owned_by":"bench"}]}'
LISTING = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(MODELS) + MODELS
CHUNKS = 64
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"token"}}]}\n\n'
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
STREAM_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Constant(asyncio.Protocol):
    """Requests are told apart by a look at their bytes; bodies are taken to come in one piece or two."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, gap, body = self.data.partition(b"\r\n\r\n")
        if not gap:
            return
        lowered = head.lower()
        start = lowered.find(b"content-length: ")
        length = int(lowered[start + 16 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(body) < length:
            return
        self.data = b""
        if b'"stream":true' not in body:
            self.transport.write(LISTING if head.startswith(b"GET") else ANSWER)
            return
        start = lowered.find(b"x-pace: ")
        if start < 0:
            for piece in (STREAM_HEAD, *[CHUNK] * CHUNKS, STREAM_END):
                self.transport.write(piece)
            return
        self.pace(int(lowered[start + 8 :].split(b"\r\n", 1)[0]) / 1000, 0)

    def pace(self, gap: float, number: int) -> None:
        """Send chunk after chunk with a pause between them."""
        if self.transport.is_closing():
            return
        if number == CHUNKS:
            self.transport.write(STREAM_END)
            return
        self.transport.write(STREAM_HEAD + CHUNK if number == 0 else CHUNK)
        asyncio.get_running_loop().call_later(gap, self.pace, gap, number + 1)


async def main() -> None:
    """Serve until killed."""
    gc.disable()
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", 0, backlog=2048)
    print(f"listens on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
