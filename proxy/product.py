"""The product's name and version, as headers and pages show them. (pure)"""

from __future__ import annotations

NAME = "Olla"
VERSION = "0.1.0"
# What a build of a package or an image writes here.
COMMIT = "none"
BUILD_DATE = "unknown"
PROXIED_BY = f"{NAME}/{VERSION}".encode()
