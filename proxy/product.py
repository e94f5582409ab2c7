"""The product's name and version, as headers and pages show them. (pure)"""

from __future__ import annotations

NAME = "Olla"
VERSION = "0.1.0"
PROXIED_BY = f"{NAME}/{VERSION}".encode()
