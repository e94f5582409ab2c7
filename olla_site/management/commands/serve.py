"""`manage.py serve`: the server for production. SIGTERM lets requests in flight finish."""

from __future__ import annotations

import sys
from typing import Any

from daphne.management.commands.runserver import get_default_application
from django.core.management.base import BaseCommand, CommandParser
from django.db import connections

from endpoints.conf import conf
from olla_site.server import running
from olla_site.startup_facts import read_facts


class Command(BaseCommand):
    """OllaServer without a reloader, with the prober beside it."""

    help = "Starts the server for production, with its prober."

    def add_arguments(self, parser: CommandParser) -> None:
        """Everything has a default in the settings."""
        parser.add_argument("--host", help="Address to listen on (OLLA_HOST).")
        parser.add_argument("--port", type=int, help="Port to listen on (OLLA_PORT); 0 picks a free one.")
        parser.add_argument("--no-prober", action="store_false", dest="prober", help="Do not start the prober.")
        parser.add_argument(
            "--shutdown-timeout",
            type=float,
            help="Seconds in-flight requests may finish after SIGTERM (OLLA_SHUTDOWN_TIMEOUT).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until a signal ends it."""
        host = options["host"] or conf().host
        port = conf().port if options["port"] is None else options["port"]
        running.prepare_first_start(self.stdout, host, port)
        connections.close_all()
        plan = running.Plan(
            host=host,
            port=port,
            prober=options["prober"],
            notes=tuple(read_facts(prober=options["prober"]).lines()),
            shutdown_timeout=options["shutdown_timeout"],
        )
        code = running.serve(get_default_application(), plan, self._write)
        if code:
            sys.exit(code)

    def _write(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
