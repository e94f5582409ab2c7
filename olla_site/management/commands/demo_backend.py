"""manage.py demo_backend: an inference server without a model, on the loopback address."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from olla_site.demo.backend import DEFAULT_MODELS, KINDS, DemoBackend


class Command(BaseCommand):
    """Runs one demo backend until it is told to stop."""

    help = "Runs a demo inference server (Ollama and OpenAI shapes, believable text, no model) on 127.0.0.1."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own type

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=0, help="Port to listen on; 0 takes a free one.")
        parser.add_argument("--type", choices=KINDS, default="ollama", help="Which server it behaves like.")
        parser.add_argument("--models", default=",".join(DEFAULT_MODELS), help="Model names, separated by commas.")
        parser.add_argument("--delay", type=float, default=0.03, help="Seconds for each token.")
        parser.add_argument("--name", default="demo", help="What it calls itself in its answers.")
        parser.add_argument(
            "--until-stdin-closes",
            action="store_true",
            help="End when standard input ends: the parent that holds its other end is gone.",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        models = tuple(part.strip() for part in options["models"].split(",") if part.strip())
        try:
            backend = DemoBackend(
                kind=options["type"],
                models=models,
                delay=options["delay"],
                name=options["name"],
                port=options["port"],
            )
            asyncio.run(self._serve(backend, until_stdin_closes=options["until_stdin_closes"]))
        except (ValueError, OSError) as error:
            raise CommandError(f"The demo backend cannot start: {error}") from error

    async def _serve(self, backend: DemoBackend, *, until_stdin_closes: bool) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        if until_stdin_closes:
            loop.add_reader(sys.stdin.fileno(), _end_at_eof, ended)
        async with backend:
            kind, models = backend.state.kind, ", ".join(backend.state.models)
            self.stdout.write(f'{backend.url} demo backend "{backend.state.name}" ({kind}): {models}')
            self.stdout.flush()
            await ended.wait()


def _end_at_eof(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        ended.set()
