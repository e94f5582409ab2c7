"""The demo backend: an inference server without a model, for trying the product out and for its tests.

wire.py        HTTP/1.1 on asyncio and httptools: requests in, answers out, hang-ups noticed
words.py       what it says, cut into tokens                                             (pure)
schemas.py     values that fit a JSON schema: JSON mode and tool arguments               (pure)
media.py       a small picture, a short tone, vectors, multipart bodies                  (pure)
replies.py     what one request gets: text, JSON or a tool call                          (pure)
state.py       one backend's name, models, pace and counters
openai_api.py openai_chat.py ollama_api.py    the two dialects
backend.py     DemoBackend: routes, starts and stops
"""

from olla_site.demo.backend import DemoBackend

__all__ = ["DemoBackend"]
