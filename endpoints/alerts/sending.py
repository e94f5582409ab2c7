"""One message to one hook, through the network door: its address guard holds, redirects are not followed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from endpoints.alerts.judging import HookKind, Message
from endpoints.asking import AskError, ProbeTarget, ask
from endpoints.conf import installation_id
from endpoints.failures import DoorError
from endpoints.secrets import Secret
from endpoints.transport import Transport

logger = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds for each phase
PAUSES = (1.0, 5.0)  # seconds before the second and third try
_LONGEST_ANSWER = 4096


@dataclass(frozen=True, slots=True)
class Hook:
    """Where messages go. The URL may hold a token: it shows nowhere."""

    name: str
    kind: HookKind
    url: Secret
    kinds: frozenset[str] = frozenset()


class SendError(Exception):
    """The message was not taken; the text names no part of the URL. `again` says whether to try once more."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


def build_body(kind: HookKind, message: Message) -> bytes:
    """What is posted."""
    if kind is HookKind.CHAT:
        return msgspec.json.encode({"text": message.text})
    return msgspec.json.encode({
        "event": message.event,
        "subject": message.subject,
        "message": message.text,
        "at": datetime.fromtimestamp(message.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "product": "olla",
        "installation": installation_id(),
    })  # fmt: skip


async def post(hook: Hook, message: Message, door: Transport, *, timeout: float = TIMEOUT) -> int:
    """Post once; the status of the answer, which is below 300. Raises SendError."""
    target = ProbeTarget(name=hook.name, url=hook.url.reveal(), backend_type="openai-compatible")
    body = build_body(hook.kind, message)
    try:
        async with asyncio.timeout(2 * timeout):
            reply = await ask(target, target.url, door, timeout=timeout, longest=_LONGEST_ANSWER, body=body)
    except AskError:
        raise SendError("The URL of the hook cannot be used.", again=False) from None
    except DoorError as error:
        raise SendError(f"No answer ({type(error).__name__}).") from None
    except TimeoutError:
        raise SendError("No answer in time.") from None
    if reply.status < 300:
        return reply.status
    if reply.status < 400:
        raise SendError(f"It answered {reply.status}; redirects are not followed.", again=False)
    raise SendError(f"It answered {reply.status}.", again=reply.status >= 500 or reply.status == 429)


async def deliver(hook: Hook, message: Message, door: Transport, pauses: tuple[float, ...] = PAUSES) -> bool:
    """Post, and try again a few times; whether it was taken. What was not is logged and dropped."""
    for number in range(len(pauses) + 1):
        try:
            await post(hook, message, door)
        except SendError as error:
            if not error.again or number == len(pauses):
                logger.warning("alert hook %s did not take %s: %s", hook.name, message.event, error)
                return False
            await asyncio.sleep(pauses[number])
        else:
            return True
    return False
