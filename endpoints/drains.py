"""Disabling endpoints whose last request has ended, where an operator asked for it.

Each web process knows its own requests only, so they tell each other through one column: as long as a process
has requests open to such an endpoint it renews `last_in_flight` every LOOK_SECONDS. A process that has none
disables the endpoint once nobody has renewed it for QUIET_SECONDS and the drain itself is that old (by then every
process has routed its last request there). A process that cannot write does not hold the others up; its open
requests finish all the same, since disabling ends none.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from endpoints.health import OperatorState
from endpoints.models import Endpoint, EndpointHealth

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
QUIET_SECONDS = 10.0


def settle_drains(busy: Collection[int], idle: Collection[int], now: datetime) -> list[str]:
    """Note which draining endpoints have requests open here, disable those nobody has; returns their names.

    Blocking; raises django.db.Error.
    """
    if busy:
        EndpointHealth.objects.filter(pk__in=busy).update(last_in_flight=now)
    quiet = now - timedelta(seconds=QUIET_SECONDS)
    waiting = Endpoint.objects.filter(
        pk__in=idle, state=OperatorState.DRAINING.value, drain_then_disable=True, updated_at__lte=quiet
    )
    done = []
    for endpoint in waiting.exclude(health__last_in_flight__gt=quiet):
        same = waiting.filter(pk=endpoint.pk, updated_at=endpoint.updated_at)
        if same.update(state=OperatorState.DISABLED.value, updated_at=now):
            logger.info("endpoint %s: drained, now disabled", endpoint.name)
            done.append(endpoint.name)
    return done
