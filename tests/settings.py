"""Settings of the test run: a data folder of its own, fast password hashing."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OLLA_DATA_DIR", str(Path(tempfile.gettempdir()) / f"olla-tests-{os.getuid()}"))

from olla_site.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# A file, not memory: connections of several threads must meet as they do in the product (WAL, lock timeouts).
DATABASES["default"]["TEST"] = {"NAME": DATA_DIR / f"test-{os.getpid()}.sqlite3"}  # noqa: F405
# All requests of the tests come from one address; tests of the limits set their own.
OLLA_GLOBAL_REQUESTS_PER_MINUTE = OLLA_PER_IP_REQUESTS_PER_MINUTE = OLLA_BURST_SIZE = 0
