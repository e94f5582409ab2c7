"""What stands in the header: the pages in their order, the admin, and who is reading."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from olla_site.portal.access import Right, Rights, request_rights


@dataclass(frozen=True, slots=True)
class Item:
    """One entry: shown to those who have the right, lit up on every address below its own."""

    label: str
    view: str
    right: Right = Right.VIEW


ITEMS = (
    Item("Fleet", "portal:home"),
    Item("Models", "portal:models"),
    Item("Requests", "portal:requests"),
    Item("Playground", "portal:playground", Right.TRY),
    Item("Explain", "portal:explain"),
    Item("Rules", "portal:rules"),
    Item("Connect", "portal:connect"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """An entry as the header writes it."""

    label: str
    address: str
    current: bool


class Frame:
    """What every page's frame asks of its request; nothing is read before the template asks."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def rights(self) -> Rights:
        """What the reader may do."""
        return request_rights(self._request)

    @cached_property
    def links(self) -> list[Link]:
        """The entries this reader may open."""
        path = self._request.path
        allowed = [(item, reverse(item.view)) for item in ITEMS if item.right in self.rights]
        shown = [Link(item.label, address, _is_here(address, path)) for item, address in allowed]
        user = getattr(self._request, "user", None)
        if user is not None and user.is_authenticated and user.is_staff:
            admin = reverse("admin:index")
            shown.append(Link("Admin", admin, path.startswith(admin)))
        return shown


def _is_here(address: str, path: str) -> bool:
    if address == "/":
        return path == "/" or path.startswith("/fleet/")
    return path.startswith(address)


def frame(request: HttpRequest) -> dict[str, object]:
    """Context processor: `frame` and `rights` in every template, admin included."""
    made = Frame(request)
    return {"frame": made, "rights": SimpleLazyObject(lambda: made.rights)}
