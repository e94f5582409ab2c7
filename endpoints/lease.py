"""Lease: at most one prober is active among all that run on one database.

The holder renews the row every two seconds; one that was killed has lost it eight seconds after its last
renewal, and a waiting prober, which looks every second, takes over. `renewed_at` is also how web processes see
that somebody probes.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from django.db import transaction

from endpoints.models import ProberLease

RENEW_EVERY = 2.0  # seconds
LASTS = 8.0
ROW = 1


class Lease:
    """This process's claim to be the active prober. Times are seconds since the epoch, given by the caller."""

    def __init__(self, holder: str = "", tell_durations: Callable[[], str] = str) -> None:
        self.holder = holder or f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._tell_durations = tell_durations  # written with each renewal: web processes show them
        self.held = False
        self._renewed = 0.0

    def hold(self, now: float) -> bool:
        """Take or renew the lease when it is time to; whether it is held now. Raises django.db.Error."""
        # A clock that was set back must not stop renewals.
        if self.held and 0 <= now - self._renewed < RENEW_EVERY:
            return True
        self.held = False  # until the database says so
        self.held = self._claim(now)
        self._renewed = now
        return self.held

    def _claim(self, now: float) -> bool:
        moment = datetime.fromtimestamp(now, UTC)
        values = {
            "holder": self.holder,
            "renewed_at": moment,
            "expires_at": moment + timedelta(seconds=LASTS),
            "durations": self._tell_durations(),
        }
        with transaction.atomic():
            row = ProberLease.objects.select_for_update().filter(pk=ROW).first()
            if row is None:
                return ProberLease.objects.get_or_create(pk=ROW, defaults=values)[1]
            # An end further away than any renewal sets it was written before a clock was set back.
            others = moment < row.expires_at <= moment + timedelta(seconds=2 * LASTS)
            if others and row.holder != self.holder:
                return False
            return bool(ProberLease.objects.filter(pk=ROW).update(**values))

    def release(self, now: float) -> None:
        """Give it up so that another prober may start at once. Raises django.db.Error."""
        if self.held:
            self.held = False
            moment = datetime.fromtimestamp(now, UTC)
            ProberLease.objects.filter(pk=ROW, holder=self.holder).update(expires_at=moment)
