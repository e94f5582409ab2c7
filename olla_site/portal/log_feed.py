"""New rows of the request log, once a second, to every page that shows its newest.

{"log": ""}        at the beginning: the page asks for what it missed
{"log": "<tr>"}    rows as the page shows them, newest first; a page with filters takes it as a sign to ask
"""

from __future__ import annotations

import json
import time

from django.template.loader import render_to_string

from olla_site.portal.broadcast import Broadcast
from olla_site.portal.requests_page import LATE, draw
from proxy.log_pages import Cursor, fetch
from proxy.models import RequestLog, key_at

MOST_ROWS = 50  # told at one look; of more only the newest
ROWS = "portal/parts/request_rows.html"


class LogFeed(Broadcast):
    """Tells rows once each, as they are written: a moment after their requests ended, by several processes."""

    name = "portal-log"

    def __init__(self) -> None:
        super().__init__()
        self._told: set[int] = set()
        self._looked = time.time()

    def full_message(self) -> str:
        """Nothing yet."""
        if not self.listeners:
            self._looked = time.time()  # what was before is asked for by the page
        return '{"log":""}'

    def difference(self) -> str:
        """The rows since a little before the last look nobody was told of: one query."""
        now = time.time()
        since = key_at(min(now, self._looked) - LATE)
        rows = fetch(RequestLog.objects.filter(id__gt=since), Cursor(), MOST_ROWS)
        self._looked = now
        fresh = [row for row in rows if row.pk not in self._told]
        self._told = {row.pk for row in rows}
        if not fresh:
            return ""
        html = render_to_string(ROWS, {"rows": [draw(row) for row in fresh], "fresh": True})
        return json.dumps({"log": html}, ensure_ascii=False)


log_feed = LogFeed()
