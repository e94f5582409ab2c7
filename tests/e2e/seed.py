"""`python -m tests.e2e.seed '<json>'`: a database with endpoints as a prober would have left them.

Takes {"endpoints": a list of {"name", "url", "kind", "models"}, with other "columns" if wanted, "aliases": a list
of columns}; runs in a process of its own, on the data folder of the environment. For servers under test that run
without their prober, or with it: endpoints that are "due" are asked at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.live import ROOT, lay_tables


def seed_database(
    data_dir: Path, endpoints: list[dict[str, Any]], aliases: list[dict[str, Any]] | None = None
) -> None:
    """Make the database in `data_dir` and register `endpoints` as healthy, and model aliases."""
    lay_tables(data_dir)
    env = {**os.environ, "OLLA_DATA_DIR": str(data_dir), "DJANGO_SETTINGS_MODULE": "olla_site.settings"}
    argv = [sys.executable, "-m", "tests.e2e.seed", json.dumps({"endpoints": endpoints, "aliases": aliases or []})]
    subprocess.run(argv, cwd=ROOT, env=env, check=True)


def main(endpoints: list[dict[str, Any]], aliases: list[dict[str, Any]]) -> None:
    """Migrate and write."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.utils import timezone

    from endpoints.health import Status
    from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, ModelAlias

    call_command("migrate", verbosity=0)
    now = timezone.now()
    for each in endpoints:
        endpoint, _ = Endpoint.objects.update_or_create(
            name=each["name"],
            defaults={"url": each["url"], "backend_type": each["kind"], **each.get("columns", {})},
        )
        next_time = now if each.get("due") else now + timedelta(days=1)
        EndpointHealth.objects.update_or_create(
            endpoint=endpoint,
            defaults={"status": Status.HEALTHY.value, "next_check": next_time, "next_discovery": next_time},
        )
        for model in each["models"]:
            DiscoveredModel.objects.get_or_create(endpoint=endpoint, name=model)
    for alias in aliases:
        ModelAlias.objects.create(**alias)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
