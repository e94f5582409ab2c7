"""`python -m tests.server.serve_app module:application`: OllaServer around one ASGI application."""

from __future__ import annotations

import importlib
import sys

import django

from olla_site.server import running


def main() -> int:
    """Serve on a free port of the loopback until a signal."""
    django.setup()
    module, _, name = sys.argv[1].partition(":")
    application = getattr(importlib.import_module(module), name)
    plan = running.Plan(host="127.0.0.1", port=0, prober=False)
    return running.serve(application, plan, lambda text: print(text, flush=True))


if __name__ == "__main__":
    sys.exit(main())
