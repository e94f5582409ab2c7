"""What to paste into clients, by their own documentation: nothing but this server's address and a model's name."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snippet:
    """One client: where the text goes is told in `place`."""

    key: str
    title: str
    place: str
    code: str


def build_snippets(base: str, model: str) -> tuple[Snippet, ...]:
    """Every client's text for this server's address (no slash at its end) and a model, whatever its name."""
    return (
        Snippet("curl", "curl", "A shell", build_curl(base, model)),
        Snippet("openai-python", "OpenAI, Python", "pip install openai", _openai_python(base, model)),
        Snippet("openai-js", "OpenAI, JavaScript", "npm install openai", _openai_js(base, model)),
        Snippet("anthropic-python", "Anthropic, Python", "pip install anthropic", _anthropic_python(base, model)),
        Snippet("claude-code", "Claude Code", "A shell", _claude_code(base, model)),
        Snippet("opencode", "OpenCode", "opencode.json in a project", _opencode(base, model)),
        Snippet("open-webui", "Open WebUI", "Its environment", _open_webui(base)),
        Snippet("ollama", "Ollama's command line", "A shell", _ollama(base, model)),
        Snippet("ollama-python", "Ollama, Python", "pip install ollama", _ollama_python(base, model)),
        Snippet("crush", "Crush", "~/.config/crush/crush.json", _crush(base, model)),
    )


def build_curl(base: str, model: str) -> str:
    """A request to paste into a shell; names with quotes in them stay one argument."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]}
    return (
        f"curl -N {base}/olla/openai/v1/chat/completions \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def _quoted(text: str) -> str:
    """A text as a literal that Python, JavaScript and JSON read alike."""
    return json.dumps(text)


def _openai_python(base: str, model: str) -> str:
    return f"""from openai import OpenAI

client = OpenAI(base_url="{base}/olla/openai/v1", api_key="none")
stream = client.chat.completions.create(
    model={_quoted(model)},
    messages=[{{"role": "user", "content": "Say hello."}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)"""


def _openai_js(base: str, model: str) -> str:
    return f"""import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{base}/olla/openai/v1", apiKey: "none" }});
const stream = await client.chat.completions.create({{
  model: {_quoted(model)},
  messages: [{{ role: "user", content: "Say hello." }}],
  stream: true,
}});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");"""


def _anthropic_python(base: str, model: str) -> str:
    return f"""from anthropic import Anthropic

client = Anthropic(base_url="{base}/olla/anthropic", api_key="none")
with client.messages.stream(
    model={_quoted(model)},
    max_tokens=1024,
    messages=[{{"role": "user", "content": "Say hello."}}],
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)"""


def _claude_code(base: str, model: str) -> str:
    name = shlex.quote(model)
    return f"""export ANTHROPIC_BASE_URL={base}/olla/anthropic
export ANTHROPIC_AUTH_TOKEN=none
export ANTHROPIC_MODEL={name}
export ANTHROPIC_DEFAULT_HAIKU_MODEL={name}
claude"""


def _opencode(base: str, model: str) -> str:
    return _json(
        {
            "$schema": "https://opencode.ai/config.json",
            "provider": {
                "olla": {
                    "npm": "@ai-sdk/openai-compatible",
                    "name": "Olla",
                    "options": {"baseURL": f"{base}/olla/openai/v1"},
                    "models": {model: {"name": model}},
                }
            },
            "model": f"olla/{model}",
        }
    )


def _open_webui(base: str) -> str:
    return f"""# As an Ollama server:
OLLAMA_BASE_URL={base}/olla/ollama
# Or every kind of backend at once, as an OpenAI server:
OPENAI_API_BASE_URL={base}/olla/openai/v1
OPENAI_API_KEY=none"""


def _ollama(base: str, model: str) -> str:
    return f"""export OLLAMA_HOST={base}/olla/ollama
ollama list
ollama run {shlex.quote(model)}"""


def _ollama_python(base: str, model: str) -> str:
    return f"""from ollama import Client

client = Client(host="{base}/olla/ollama")
for part in client.chat({_quoted(model)}, [{{"role": "user", "content": "Say hello."}}], stream=True):
    print(part.message.content, end="", flush=True)"""


def _crush(base: str, model: str) -> str:
    return _json(
        {
            "$schema": "https://charm.land/crush.json",
            "providers": {
                "olla": {
                    "name": "Olla",
                    "type": "openai-compat",
                    "base_url": f"{base}/olla/openai/v1",
                    "api_key": "none",
                    "models": [{"id": model, "name": model, "context_window": 32768, "default_max_tokens": 4096}],
                }
            },
        }
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def build_embedding(base: str, model: str) -> str:
    """A streaming fetch for a page of another site, which OLLA_CORS_ORIGINS must list."""
    return f"""const answer = await fetch("{base}/olla/openai/v1/chat/completions", {{
  method: "POST",
  headers: {{ "Content-Type": "application/json" }},
  body: JSON.stringify({{
    model: {_quoted(model)}, stream: true, messages: [{{ role: "user", content: "Say hello." }}],
  }}),
}});
if (!answer.ok) throw new Error((await answer.json()).error.message);
console.log("answered by", answer.headers.get("X-Olla-Endpoint"));
const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader();
for (let rest = ""; ;) {{
  const {{ value, done }} = await lines.read();
  if (done) break;
  const events = (rest + value).split("\\n\\n");
  rest = events.pop();
  for (const event of events) {{
    const data = event.replace(/^data: /, "");
    if (data === "[DONE]") continue;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message); // a stream that broke off says so
    document.querySelector("#answer").append(chunk.choices[0]?.delta?.content ?? "");
  }}
}}"""
