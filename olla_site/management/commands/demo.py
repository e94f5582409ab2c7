"""manage.py demo: everything to try the product with, in one command.

Makes the database and the first account, starts two demo backends as child processes, registers them, runs the
server with its prober, and prints a request to try once that request would succeed.
"""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from endpoints.conf import conf
from olla_site.demo.children import ChildError, DemoChild
from olla_site.demo.registration import PLANS, SHARED_MODEL, NameTakenError, are_found, register, remove
from olla_site.server import running

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.2


class Command(BaseCommand):
    """Starts the demo, and ends it with Ctrl-C."""

    help = "Starts the server with two demo backends, and prints a request to try."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", help="Address to listen on (OLLA_HOST).")
        parser.add_argument("--port", type=int, help="Port to listen on (OLLA_PORT).")
        parser.add_argument("--delay", type=float, default=0.03, help="Seconds for each token.")
        parser.add_argument("--clean", action="store_true", help="Remove the demo's endpoints, start nothing.")

    def handle(self, *_: Any, **options: Any) -> None:
        host, port = options["host"] or conf().host, options["port"] or conf().port
        if not options["clean"]:
            check_port(host, port)
        running.prepare_first_start(self.stdout, host, port)
        if options["clean"]:
            self.stdout.write(f"Removed {remove()} demo endpoints.")
            return
        children = [DemoChild(plan, options["delay"]) for plan in PLANS]
        try:
            self._start(children)
            watcher = threading.Thread(target=self._announce, args=(host, port, children), daemon=True)
            watcher.start()
            call_command("serve", host=host, port=port, stdout=self.stdout)
        except (ChildError, NameTakenError) as error:
            raise CommandError(str(error)) from error
        finally:
            for child in children:
                child.stop()

    def _start(self, children: list[DemoChild]) -> None:
        for child in children:
            child.start()
        for child in children:
            register(child.plan, child.wait_for_url())

    def _announce(self, host: str, port: int, children: list[DemoChild]) -> None:
        """Print what to do, once the server answers and lists both backends' models."""
        shown = "localhost" if running.is_loopback(host) or host == "0.0.0.0" else host  # noqa: S104 - compared
        url = f"http://{shown}:{port}"
        wanted = {model for child in children for model in child.plan.models}
        deadline = time.monotonic() + _READY_SECONDS
        # First the tables, then the server: asking it all the time would fill the access log.
        while not (are_found() and wanted <= list_models(url)):
            if time.monotonic() > deadline:
                self.stderr.write("The demo backends are not usable yet; the log above may say why.")
                return
            time.sleep(_POLL_SECONDS)
        self.stdout.write(build_text(url, children))
        self.stdout.flush()


def check_port(host: str, port: int) -> None:
    """Raise CommandError when the server could not listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise CommandError(f"Cannot listen on {host} port {port}: {error.strerror}.") from error
            message = f"Port {port} is taken. Choose another one: make demo PORT={port + 1}"
            raise CommandError(message) from error


def list_models(url: str) -> set[str]:
    """The models the server lists; none while it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/olla/proxy/v1/models", timeout=5) as answer:
            return {each["id"] for each in json.load(answer)["data"]}
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return set()


def build_text(url: str, children: list[DemoChild]) -> str:
    """What to try."""
    body = {
        "model": SHARED_MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    }
    backends = "".join(f"\n    {c.plan.name:12} process {c.pid}: {', '.join(c.plan.models)}" for c in children)
    return f"""
------------------------------------------------------------------------
The demo is ready. Its backends have no model and say so.

  Stream an answer (in another terminal):

curl -N {url}/olla/openai/v1/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'

  Endpoints, models, first page:   {url}/
  Add a backend of your own:       {url}/admin/endpoints/endpoint/add/
  Sign in as "admin" with the password printed above on the first start
  (a new one: .venv/bin/python manage.py changepassword admin).

  Backends:{backends}
  Failover: both have {SHARED_MODEL}. `kill` one of the processes and ask again.

  Ctrl-C ends everything. The demo endpoints stay in the list, offline;
  .venv/bin/python manage.py demo --clean removes them.
------------------------------------------------------------------------"""
