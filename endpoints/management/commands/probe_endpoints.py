"""probe_endpoints: keep asking every endpoint for its health and models; `--once` asks each one time."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django.db
from django.core.management.base import BaseCommand, CommandError

from endpoints.chores import start_chores
from endpoints.models import Endpoint
from endpoints.prober import Prober
from endpoints.prober_once import probe_all


class Command(BaseCommand):
    """Runs until SIGTERM, SIGINT or the end of the parent's pipe. Several may run: one at a time is active."""

    help = "Asks every endpoint for its health and models and records what it finds."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="Ask every endpoint once, print a table and end.")
        parser.add_argument(
            "--parent-pipe", type=int, metavar="FD", help="End when this inherited descriptor reads end of file."
        )

    def handle(self, *_: Any, **options: Any) -> None:
        if options["once"]:
            self._run_once()
        else:
            asyncio.run(run_until_told(options["parent_pipe"]))

    def _run_once(self) -> None:
        try:
            if asyncio.run(probe_all()):
                self.stderr.write(
                    "Another prober is active on this database; the endpoints were asked all the same."
                )
            lines = [LINE.format("ENDPOINT", "STATUS", "LATENCY", "MODELS", "REASON")]
            lines += [
                describe(endpoint) for endpoint in Endpoint.objects.select_related("health").order_by("name")
            ]
        except django.db.Error as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        self.stdout.write("\n".join(lines))


LINE = "{:<30} {:<13} {:>9} {:>7}  {}"


def describe(endpoint: Endpoint) -> str:
    """One line of the table."""
    health = endpoint.health
    latency = "-" if health.latency_ms is None else f"{health.latency_ms:.0f} ms"
    status = "disabled" if endpoint.state == "disabled" else health.status
    reason = health.last_error or health.models_error
    return LINE.format(endpoint.name, status, latency, endpoint.discovered_models.count(), reason).rstrip()


async def run_until_told(parent_pipe: int | None) -> None:
    """Run a prober until a signal comes or the parent is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent_pipe is not None:
        watch_pipe(loop, parent_pipe, stop.set)
    prober = Prober()
    chores = start_chores(lambda: prober.is_active)
    try:
        await prober.run(stop)
    finally:
        for chore in chores:
            chore.cancel()


def watch_pipe(loop: asyncio.AbstractEventLoop, descriptor: int, ended: Callable[[], None]) -> None:
    """Call `ended` once when the writing ends of a pipe are closed, which the kernel does also after SIGKILL."""

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            ended()

    try:
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, readable)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"--parent-pipe {descriptor} cannot be watched: {error}\n")
        ended()
