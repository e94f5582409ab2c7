"""`python -m tests.e2e.real.register '<json>'`: endpoints as an operator adds them.

Takes a list of {"name", "url"}, with other columns of Endpoint if wanted; the rest is left to the prober. Works on
the data folder of the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.live import ROOT


def register(data_dir: Path, endpoints: list[dict[str, Any]], env: dict[str, str]) -> None:
    """Make the database in `data_dir` and add the endpoints, validated as a form would."""
    settings = {"OLLA_DATA_DIR": str(data_dir), "DJANGO_SETTINGS_MODULE": "olla_site.settings"}
    argv = [sys.executable, "-m", "tests.e2e.real.register", json.dumps(endpoints)]
    subprocess.run(argv, cwd=ROOT, env={**os.environ, **settings, **env}, check=True)


def main(endpoints: list[dict[str, Any]]) -> None:
    """Migrate and write."""
    import django

    django.setup()
    from django.core.management import call_command

    from endpoints.models import Endpoint, EndpointHealth

    call_command("migrate", verbosity=0)
    for columns in endpoints:
        endpoint = Endpoint(**columns)
        endpoint.full_clean()
        endpoint.save()
        EndpointHealth.objects.get_or_create(endpoint=endpoint)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
