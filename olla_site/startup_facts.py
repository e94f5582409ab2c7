"""What a start-up banner tells beyond the address: database, prober, endpoints found, and whatever is unsafe."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from endpoints.conf import Conf, InternalAccess, conf
from endpoints.health import ROUTABLE, OperatorState
from endpoints.models import Endpoint


@dataclass(frozen=True, slots=True)
class Facts:
    """Read once, before the server listens."""

    database: str
    prober: str
    endpoints: str
    unsafe: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The lines below the address."""
        lines = [f"Database: {self.database}", f"Prober: {self.prober}", f"Endpoints: {self.endpoints}"]
        return lines + [f"UNSAFE: {each}" for each in self.unsafe]


def read_facts(*, prober: bool) -> Facts:
    """The facts of this installation; a database that cannot be read is one of them."""
    try:
        endpoints, unverified = _describe_endpoints(), _name_unverified()
    except DatabaseError as error:
        endpoints, unverified = f"unknown, for the database cannot be read: {error}", []
    finally:
        connections.close_all()
    return Facts(
        database=_describe_database(),
        prober="starts beside the server" if prober else "none from here; endpoints need one that runs elsewhere",
        endpoints=endpoints,
        unsafe=tuple(find_unsafe(conf(), debug=settings.DEBUG, unverified=unverified)),
    )


def _describe_database() -> str:
    database = connections[DEFAULT_DB_ALIAS].settings_dict
    name = str(database["NAME"])
    if database["ENGINE"].endswith("sqlite3"):
        return f"SQLite, {name}"
    return f"{database['ENGINE'].rpartition('.')[2]}, {name} at {database.get('HOST') or 'localhost'}"


def _describe_endpoints() -> str:
    states = list(Endpoint.objects.values_list("state", "health__status"))
    if not states:
        return "none yet; add one in the admin, or run manage.py discover_local"
    well = sum(state == OperatorState.ACTIVE and status in set(ROUTABLE) for state, status in states)
    return f"{len(states)} configured, {well} took requests when last looked at"


def _name_unverified() -> list[str]:
    return list(Endpoint.objects.filter(verify_tls=False).order_by("name").values_list("name", flat=True)[:5])


def find_unsafe(settings_in_force: Conf, *, debug: bool, unverified: list[str]) -> list[str]:
    """What an operator should know before others can reach the server."""
    found = []
    if debug:
        found.append("OLLA_DEBUG=1 shows source code and settings in error pages.")
    if settings_in_force.open_guarded_paths:
        opened = ", ".join(settings_in_force.open_guarded_paths)
        found.append(f"OLLA_OPEN_GUARDED_PATHS lets every client manage models ({opened}).")
    if settings_in_force.allow_scripts:
        found.append("OLLA_ALLOW_SCRIPTS=1 runs scripts of backends' pages in browsers.")
    if settings_in_force.internal_access == InternalAccess.EVERYONE:
        found.append("OLLA_INTERNAL_ACCESS=everyone shows /internal to whoever reaches the port.")
    if any(ipaddress.ip_network(each).prefixlen == 0 for each in settings_in_force.trusted_proxies):
        found.append("OLLA_TRUSTED_PROXIES believes every client's word on its address.")
    if unverified:
        found.append(f"TLS certificates are not checked for: {', '.join(unverified)}.")
    return found
