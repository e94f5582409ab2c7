"""`manage.py runserver`: the server with autoreload, for trying and developing. Needs nothing else running."""

from __future__ import annotations

import sys
from typing import Any

from daphne.management.commands.runserver import Command as DaphneCommand
from django.core.management.base import CommandParser
from django.db import connections
from django.utils import autoreload

from endpoints.conf import conf
from olla_site.server import running
from olla_site.startup_facts import read_facts


class Command(DaphneCommand):  # type: ignore[misc]
    """Django's runserver on OllaServer, with our address and the prober beside it."""

    help = "Starts the server and its prober; starts again when code changes."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add `--no-prober` to Django's own."""
        super().add_arguments(parser)
        parser.add_argument("--no-prober", action="store_false", dest="prober", help="Do not start the prober.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Take the default address from OLLA_HOST and OLLA_PORT."""
        self.default_addr = conf().host
        self.default_port = str(conf().port)
        super().handle(*args, **options)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Serve once: in the reloader's child, or in this process with --noreload."""
        if not options.get("use_asgi", True):
            super().inner_run(*args, **options)
            return
        autoreload.raise_last_exception()
        running.prepare_first_start(self.stdout, self.addr, int(self.port))
        if not options["skip_checks"]:
            self.check(display_num_errors=True)
        self.check_migrations()
        connections.close_all()
        plan = running.Plan(
            host=f"[{self.addr}]" if self._raw_ipv6 else self.addr,
            port=int(self.port),
            prober=options["prober"],
            notes=tuple(read_facts(prober=options["prober"]).lines()),
            # Under the reloader this is not the main thread, which alone may have signal handlers.
            signal_handlers=not options["use_reloader"],
        )
        code = running.serve(self.get_application(options), plan, self._write)
        if code:
            sys.exit(code)

    def _write(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
