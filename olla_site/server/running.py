"""What `runserver` and `serve` share: the banner, the first start, the server with its prober."""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from django.conf import settings

from olla_site import first_start
from olla_site.server.prober_child import ProberChild, has_prober
from olla_site.server.server import Address, OllaServer

Write = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve: where, with or without the prober, with signals or (under the reloader) not."""

    host: str
    port: int
    prober: bool = True
    signal_handlers: bool = True
    shutdown_timeout: float | None = None
    notes: tuple[str, ...] = ()  # what the banner tells beyond the address


def prepare_first_start(stdout: Any, host: str = "", port: int = 0) -> None:
    """Make database and first account ready; host and port are where the server will listen."""
    first_start.prepare(stdout, host, port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def build_banner(addresses: list[Address], machine: str, *, https: bool, notes: tuple[str, ...] = ()) -> str:
    """What to tell the person who started the server; the first line names the bound address.

    `machine` is this machine's name, `https` whether a TLS proxy in front is declared.
    """
    host, port = addresses[0]
    shown = f"[{host}]" if ":" in host else host
    lines = [f"Olla listens on http://{shown}:{port}/"]
    if is_loopback(host):
        lines.append("Only this machine can reach it. Set OLLA_HOST=0.0.0.0 to open it to others.")
    else:
        if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            lines.append(f"Others reach it at http://{machine}:{port}/")
        if not https:
            lines.append("Passwords travel in clear: put a TLS proxy in front and set OLLA_HTTPS=1.")
    lines += notes
    lines.append("Quit with Ctrl-C.")
    return "\n".join(lines)


def serve(application: Any, plan: Plan, write: Write) -> int:
    """Serve until the end and return the exit code; `write` gets the banner once the doors are open."""
    prober = ProberChild() if plan.prober and has_prober() else None

    def listening(addresses: list[Address]) -> None:
        write(build_banner(addresses, socket.gethostname(), https=settings.HTTPS, notes=plan.notes))
        if prober is not None:
            prober.start(time.monotonic())
            server.on_sweep.append(lambda _: prober.check(time.monotonic()))

    server = OllaServer(
        application,
        endpoints=build_endpoint_description_strings(host=plan.host, port=plan.port),
        signal_handlers=plan.signal_handlers,
        shutdown_timeout=plan.shutdown_timeout,
        on_listening=listening,
    )
    _raise_descriptor_limit()
    try:
        server.run()
    finally:
        if prober is not None:
            prober.stop()
    if server.drain.forced:
        _exit_now(server.exit_code)
    return server.exit_code


def _raise_descriptor_limit() -> None:
    """Allow as many connections as the system does: the usual soft limit is 1024, for select()'s sake."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _exit_now(code: int) -> None:
    """End the process without waiting for threads: one that hangs in a blocking call would hold it up."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
