"""Asking every endpoint one time, for `probe_endpoints --once`, cron and tests."""

from __future__ import annotations

import asyncio
import os
import time

from endpoints.conf import conf
from endpoints.database_thread import DatabaseThread
from endpoints.health import ROUTABLE
from endpoints.models import ProberLease
from endpoints.prober import Discovered, Finding, Probed, plan_discovery, record, safe_discovery, safe_probe
from endpoints.probing import Discovery
from endpoints.recording import Job, add_missing_rows, build_job, to_datetime, watched
from endpoints.transport import Transport


async def probe_all() -> bool:
    """Probe every endpoint that is not disabled, then read the models of those that are well.

    Needs no lease: writes are compare-and-set, so it may run beside an active prober; the answer says whether
    one is. Raises django.db.Error.
    """
    database = DatabaseThread("olla-probe-once")
    door = Transport()
    limit = asyncio.Semaphore(conf().probe_concurrency)

    async def probe(job: Job) -> Finding:
        async with limit:
            started = time.time()
            return Probed(job, await safe_probe(job, door, started), started, time.time())

    async def discover(job: Job) -> Finding:
        async with limit:
            started = time.time()
            found = await safe_discovery(job, door)
            planned = time.time() + plan_discovery(0 if isinstance(found, Discovery) else 1)
            return Discovered(job, found, started, planned)

    try:
        jobs = await database.run(read_jobs)
        probed = await asyncio.gather(*map(probe, jobs))
        await database.run(lambda: record(probed))
        well = [job for job in await database.run(read_jobs) if job.state.status in ROUTABLE]
        discovered = await asyncio.gather(*map(discover, well))
        await database.run(lambda: record(discovered))
        return await database.run(lambda: is_prober_active(time.time()))
    finally:
        database.close()
        await door.aclose()


def read_jobs() -> list[Job]:
    """A job for every endpoint that is probed. Raises django.db.Error."""
    add_missing_rows()
    return [build_job(endpoint, os.environ) for endpoint in watched()]


def is_prober_active(now: float) -> bool:
    """Whether somebody holds the lease. Raises django.db.Error."""
    return ProberLease.objects.filter(expires_at__gt=to_datetime(now)).exists()
