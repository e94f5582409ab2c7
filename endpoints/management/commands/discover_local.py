"""discover_local: find the inference servers that run on this machine and register them."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import django.db
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from endpoints.conf import conf
from endpoints.local_servers import LocalServer, choose_name, find_servers, is_same_place, well_known_ports
from endpoints.models import Endpoint
from endpoints.profiles import profile_for

SECONDS = 2.5  # how long to look; all ports are asked at once


class Command(BaseCommand):
    """May be run again at any time: what is registered already is left as it is."""

    help = "Looks for inference servers on this machine's well-known ports and registers what answers."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be registered.")
        parser.add_argument(
            "--ports",
            type=parse_ports,
            metavar="N,N,...",
            help="Look at these ports instead of the well-known ones.",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        # Never this server itself: it would answer for its own backends and requests would go in circles.
        ports = [port for port in options["ports"] or well_known_ports() if port != conf().port]
        servers = asyncio.run(find_servers(ports, seconds=SECONDS))
        if not servers:
            self.stdout.write(f"No inference server found on this machine (ports {', '.join(map(str, ports))}).")
        for server in servers:
            try:
                self.stdout.write(register(server, dry_run=options["dry_run"]))
            except django.db.Error as error:
                raise CommandError(f"The database cannot be used: {error}") from error


def register(server: LocalServer, *, dry_run: bool) -> str:
    """Add an endpoint for `server` unless there is one; what was done. Raises django.db.Error."""
    title = profile_for(server.kind).title
    with transaction.atomic():
        known = dict(Endpoint.objects.values_list("name", "url"))
        there = next((name for name, url in known.items() if is_same_place(url, server.port)), "")
        if there:
            return f"{title} at {server.url} is registered already, as {there}."
        name = choose_name(server.kind, server.port, known)
        if dry_run:
            return f"{title} at {server.url} would be registered as {name}."
        Endpoint.objects.create(name=name, url=server.url, backend_type=server.kind)
    return f"{title} at {server.url} is now registered as {name}."


def parse_ports(text: str) -> list[int]:
    """Ports separated by commas. Raises ArgumentTypeError for anything else."""
    try:
        ports = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError("give port numbers separated by commas") from error
    if not all(0 < port < 65536 for port in ports):
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return ports
