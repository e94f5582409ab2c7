"""prune: sum up the request log by the hour and let go of what is past its time."""

from __future__ import annotations

import argparse
import time
from typing import Any

import django.db
from django.core.management.base import BaseCommand, CommandError

from endpoints.conf import conf
from proxy.roll_ups import prune


class Command(BaseCommand):
    """The prober does this by itself; for cron where no prober runs, and after shortening the retention."""

    help = "Sums up the request log by the hour and deletes rows past their retention, without blocking others."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--days", type=float, help="Days rows are kept; OLLA_REQUEST_LOG_DAYS by default.")
        parser.add_argument(
            "--rollup-days", type=float, help="Days sums are kept; OLLA_REQUEST_LOG_ROLLUP_DAYS by default."
        )

    def handle(self, *_: Any, **options: Any) -> None:
        days = conf().request_log_days if options["days"] is None else options["days"]
        rollup_days = conf().request_log_rollup_days if options["rollup_days"] is None else options["rollup_days"]
        if days < 0 or rollup_days < 0:
            raise CommandError("Days cannot be negative; 0 keeps everything.")
        shown = self.stdout.isatty()

        def show(rows: int) -> None:
            if shown:
                self.stdout.write(f"\r{rows} rows deleted", ending="")
                self.stdout.flush()

        try:
            done = prune(time.time(), days, rollup_days, show)
        except django.db.Error as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        if shown and done.rows:
            self.stdout.write("")
        self.stdout.write(
            f"{done.hours_rolled} hours summed up, {done.rows} rows and {done.hours} hourly sums deleted."
        )
