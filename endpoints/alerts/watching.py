"""The loop: look at the facts, take the right to tell of a change, and send it to the hooks that want it.

Several processes may look at the same fact. What was told is one row for each fact, changed by compare-and-set:
whoever succeeds sends, the others find it told. A process that dies between the two loses the message; one that
sent first could send twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from django.db import DatabaseError

from endpoints import tasks
from endpoints.alerts.judging import Fact, HookKind, Message, Told, judge
from endpoints.alerts.sending import Hook, deliver
from endpoints.conf import conf
from endpoints.database_thread import DatabaseThread
from endpoints.models import AlertHook, AlertState
from endpoints.transport import Transport

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 4

LookAt = Callable[[float], Sequence[Fact]]


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be sent, and to whom."""

    message: Message
    hooks: tuple[Hook, ...]


def load_hooks() -> list[Hook]:
    """The hooks that are switched on and can be sent to; blocking."""
    hooks = []
    for row in AlertHook.objects.filter(enabled=True):
        try:
            hooks.append(build_hook(row))
        except HookError as error:
            _tell_useless(row.name, str(error))
    return hooks


class HookError(Exception):
    """A hook nothing can be sent to; the text says what to do."""


def build_hook(row: AlertHook) -> Hook:
    """A row as it is sent to. Raises HookError."""
    if row.kind not in tuple(HookKind):  # written past the admin's form
        raise HookError(f"It is of a kind there is none of ({row.kind[:40]!r}): choose one in the admin.")
    if not row.url:
        raise HookError("Its URL cannot be read: its encryption key is gone. Give it again in the admin.")
    return Hook(row.name, HookKind(row.kind), row.url, frozenset(row.event_names()))


@lru_cache(maxsize=256)
def _tell_useless(name: str, why: str) -> None:
    """Say that a hook is told nothing: once a process, though it is looked at every few seconds."""
    logger.error("alert hook %s is told nothing. %s", name, why)


def take_due(facts: Iterable[Fact], now: float, *, hold: float, repeat: float) -> list[Due]:
    """What this process is to send now: each change is one process's. Blocking; raises DatabaseError."""
    hooks = load_hooks()
    wanted = frozenset[str]().union(*(hook.kinds for hook in hooks))
    facts = [fact for fact in facts if fact.kind in wanted]
    if not facts:
        return []
    rows = {row.key: row for row in AlertState.objects.filter(key__in=[fact.key for fact in facts])}
    due = []
    for fact in facts:
        row = rows.get(fact.key)
        told, message = judge(_told_of(row), fact, now, hold=hold, repeat=repeat)
        if told == _told_of(row):
            continue
        if _take(row, fact.key, told) and message is not None:
            due.append(Due(message, tuple(hook for hook in hooks if fact.kind in hook.kinds)))
    return due


def _told_of(row: AlertState | None) -> Told:
    if row is None:
        return Told()
    return Told(
        row.is_bad,
        row.differs_since.timestamp() if row.differs_since else None,
        row.sent_at.timestamp() if row.sent_at else None,
    )


def _take(row: AlertState | None, key: str, told: Told) -> bool:
    """Change the row of a fact unless another process has changed it; whether it was done."""
    values = {
        "is_bad": told.is_bad,
        "differs_since": _moment(told.differs_since),
        "sent_at": _moment(told.sent_at),
    }
    if row is None:
        _, created = AlertState.objects.get_or_create(key=key, defaults=values)
        return created
    changed = AlertState.objects.filter(pk=row.pk, version=row.version).update(version=row.version + 1, **values)
    return bool(changed)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class Watcher:
    """Looks every few seconds while it runs; `look_at` is called in the database thread if `in_thread`.

    `settle` is called when what was seen has been judged, which needs the database: until then an occurrence
    (that log rows were dropped, say) must be seen again.
    """

    def __init__(
        self,
        look_at: LookAt,
        *,
        in_thread: bool,
        is_active: Callable[[], bool] = lambda: True,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._look_at = look_at
        self._in_thread = in_thread
        self._is_active = is_active
        self._settle = settle
        self._database = DatabaseThread("olla-alerts")
        self._door = Transport()
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)
        self._trouble = False

    async def run(self) -> None:
        """Look until cancelled; then close the connections."""
        try:
            while True:
                await asyncio.sleep(conf().alert_interval)
                if self._is_active():
                    await self.look(time.time())
        finally:
            self._database.close()
            await self._door.aclose()

    async def look(self, now: float) -> None:
        """Look once, and start to send what is due."""
        facts = None if self._in_thread else self._look_at(now)
        hold, repeat = conf().alert_hold, conf().alert_repeat
        try:
            due = await self._database.run(
                lambda: take_due(self._look_at(now) if facts is None else facts, now, hold=hold, repeat=repeat)
            )
        except DatabaseError as error:
            if not self._trouble:
                logger.warning("alerts wait for the database: %s", error)
            self._trouble = True
            return
        self._trouble = False
        self._settle()
        for each in due:
            for hook in each.hooks:
                tasks.spawn(self._send(hook, each.message), f"alert {hook.name}")

    async def _send(self, hook: Hook, message: Message) -> None:
        async with self._room:
            if await deliver(hook, message, self._door):
                logger.info("alert hook %s was told: %s %s", hook.name, message.event, message.subject)
