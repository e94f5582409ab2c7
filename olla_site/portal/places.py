"""Endpoints as a list of links, those that take requests first: what a rule or an alias leads to now.

Drawn here and not by a template: a page has hundreds of them, many alike, and each is drawn once for its page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from endpoints.snapshot import Snapshot
from proxy.sieve import LiveView, is_usable

NAME_SHOWN = 28  # characters


@dataclass(frozen=True, slots=True)
class Places:
    """A list ready to print, and whether anybody in it takes requests."""

    html: SafeString
    works: bool


class PlaceDrawer:
    """Draws the lists of one page."""

    def __init__(self, snapshot: Snapshot, view: LiveView, most: int) -> None:
        self._snapshot, self._view, self._most = snapshot, view, most
        self._links: dict[int, tuple[bool, SafeString]] = {}
        self._known: dict[tuple[int, ...], Places] = {}

    def draw(self, ids: Iterable[int], none: str) -> Places:
        """The list of these endpoints; `none` says that there are none."""
        key = tuple(ids)
        if not key:
            return Places(format_html('<span class="muted small">{}</span>', none), works=False)
        if key not in self._known:
            self._known[key] = self._make(key)
        return self._known[key]

    def _make(self, ids: tuple[int, ...]) -> Places:
        links = sorted((self._link(each) for each in ids), key=lambda link: not link[0])
        more = len(links) - self._most
        left_out = format_html('<li class="muted small">and {} more</li>', more) if more > 0 else ""
        shown = format_html_join("", "{}", ((html,) for _, html in links[: self._most]))
        return Places(format_html('<ul class="tags places">{}{}</ul>', shown, left_out), links[0][0])

    def _link(self, endpoint_id: int) -> tuple[bool, SafeString]:
        """Whether an endpoint takes requests, and its entry."""
        if endpoint_id not in self._links:
            endpoint = self._snapshot.by_id[endpoint_id]
            usable = is_usable(endpoint, self._view)
            html = format_html(
                '<li><a class="tag place{}" href="{}" title="{}">{}{}</a></li>',
                "" if usable else " gone",
                reverse("portal:endpoint", args=[endpoint_id]),
                endpoint.name,
                Truncator(endpoint.name).chars(NAME_SHOWN),
                "" if usable else format_html('<span class="unseen">{}</span>', ", takes no requests now"),
            )
            self._links[endpoint_id] = usable, html
        return self._links[endpoint_id]
