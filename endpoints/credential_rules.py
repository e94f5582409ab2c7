"""Rules for the credentials and extra headers of an endpoint. No message repeats a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from endpoints.fields import UnreadableSecret
from endpoints.findings import Finding, error, warning
from endpoints.secret_files import find_secret_file, read_secret_file
from endpoints.secrets import PLACEHOLDER, Secret, SecretError, may_read_env
from endpoints.write_only import SecretAction, SecretEdit, is_header_name, restore_header_lines

if TYPE_CHECKING:
    from endpoints.models import Endpoint
    from endpoints.validation import Draft

# Hop-by-hop or framing (RFC 9110 section 7.6.1, RFC 9112), or what loop detection lives on.
REFUSED_HEADERS = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "via",
    }
)  # fmt: skip
MOST_HEADERS_LENGTH = 16_384
NEEDED = {
    "bearer": (("auth_secret", "token"),),
    "api_key": (("auth_secret", "key"),),
    "basic": (("auth_username", "user name"), ("auth_secret", "password")),
}


def check_credentials(
    draft: Draft, stored: Endpoint | None, env: Mapping[str, str], allow: tuple[str, ...]
) -> Iterator[Finding]:
    """Authentication and extra headers of `draft` beside what is stored."""
    needed = NEEDED.get(draft.auth_type, ())
    for field, title in needed:
        yield from _check_needed(field, title, getattr(draft, field), _stored(stored, field))
    yield from _check_superfluous(draft, {field for field, _ in needed})
    for field in ("auth_username", "auth_secret"):
        edit: SecretEdit = getattr(draft, field)
        if edit.action is SecretAction.REPLACE:
            yield from _check_value(field, "The value", edit.value, ascii_only=draft.auth_type != "basic")
            yield from _check_placeholders(field, edit.value, env, allow)
    if draft.auth_type == "api_key" and draft.auth_header:
        yield from _check_name("auth_header", draft.auth_header, "This")
    yield from _check_spelling(draft)
    yield from _check_extra(draft.extra_headers, _stored(stored, "extra_headers"), env, allow)


def _stored(row: Endpoint | None, field: str) -> Secret:
    secret: Secret = getattr(row, field) if row else Secret("")
    return secret


def _check_needed(field: str, title: str, edit: SecretEdit, stored: Secret) -> Iterator[Finding]:
    if edit.action is SecretAction.KEEP and isinstance(stored, UnreadableSecret):
        yield warning(field, f"The stored {title} cannot be decrypted with today's keys: enter it again.")
    elif not edit.apply(stored):
        yield error(field, f"This kind of authentication needs a {title}.")


def _check_superfluous(draft: Draft, needed: set[str]) -> Iterator[Finding]:
    for field, title in (("auth_username", "a user name"), ("auth_secret", "a secret")):
        if field not in needed and getattr(draft, field).action is SecretAction.REPLACE:
            yield error(
                field, f"The chosen authentication does not use {title}. Choose another, or leave this empty."
            )


def _check_spelling(draft: Draft) -> Iterator[Finding]:
    secret, username = draft.auth_secret.value.reveal(), draft.auth_username.value.reveal()
    if draft.auth_type == "bearer" and secret.lower().startswith("bearer "):
        yield error("auth_secret", 'Enter the token alone; "Bearer" is put before it.')
    if draft.auth_type == "basic" and ":" in username:
        yield error("auth_username", "A user name cannot contain a colon (RFC 7617).")


def _check_value(field: str, subject: str, value: Secret, *, ascii_only: bool) -> Iterator[Finding]:
    text = value.reveal()
    if len(text) > MOST_HEADERS_LENGTH:
        yield error(field, f"{subject} is longer than {MOST_HEADERS_LENGTH} characters.")
    elif any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        yield error(field, f"{subject} contains a line break or another control character.")
    elif ascii_only and not text.isascii():
        yield error(
            field, f"{subject} contains a character that is not plain ASCII (a quote or space from a document?)."
        )
    elif text != text.strip():
        yield error(field, f"{subject} begins or ends with a space.")


def _check_placeholders(
    field: str, value: Secret, env: Mapping[str, str], allow: tuple[str, ...]
) -> Iterator[Finding]:
    text = value.reveal()
    if "${" in PLACEHOLDER.sub("", text):
        yield error(field, "${ begins a placeholder: write ${NAME}, ${NAME:-default} or ${file:name}.")
    for match in PLACEHOLDER.finditer(text):
        name, default = match["name"], match["default"]
        if match["file"] is not None:
            yield from _check_file(field, match["file"])
        elif not may_read_env(name, allow):
            yield error(
                field,
                f"The environment variable {name} may not be read here. Allowed names: {', '.join(allow)} "
                "(setting OLLA_ENV_ALLOW), never this product's own.",
            )
        elif not env.get(name) and default is None:
            yield warning(
                field, f"The environment variable {name} is not set: the endpoint gets no traffic until it is."
            )


def _check_file(field: str, name: str) -> Iterator[Finding]:
    """A name that may never be read is refused; a file that is not there yet is told."""
    try:
        find_secret_file(name)
    except SecretError as problem:
        yield error(field, str(problem))
        return
    try:
        read_secret_file(name)
    except SecretError as problem:
        yield warning(field, f"{problem} The endpoint gets no traffic until it can be read.")


def _check_name(field: str, name: str, subject: str) -> Iterator[Finding]:
    # What is no name may be a secret pasted into the wrong place, so it is not repeated.
    if not is_header_name(name):
        yield error(field, f"{subject} is not a header name: letters, digits and - only, no spaces.")
    elif name.lower() in REFUSED_HEADERS:
        yield error(field, f"{name} belongs to the connection itself and cannot be set.")


def _check_extra(
    typed: Secret, stored: Secret, env: Mapping[str, str], allow: tuple[str, ...]
) -> Iterator[Finding]:
    field = "extra_headers"
    if isinstance(stored, UnreadableSecret):
        yield warning(field, "The stored extra headers cannot be decrypted with today's keys: enter them again.")
    if len(typed.reveal()) > MOST_HEADERS_LENGTH:
        yield error(field, f"Together at most {MOST_HEADERS_LENGTH} characters.")
        return
    lines, missing = restore_header_lines(typed, stored)
    for name in missing:
        yield error(field, f"{name}: no value is stored under this name. Enter one.")
    for number, line in enumerate(lines, 1):
        if not line.has_colon:
            yield error(field, f"Line {number} has no colon. Write Name: value.")
            continue
        yield from _check_name(field, line.name, f"Line {number}: the text before the colon")
        if not is_header_name(line.name):
            continue
        if not line.value:
            yield error(field, f"{line.name}: enter the value (values are never shown again).")
        yield from _check_value(field, f"The value of {line.name}", line.value, ascii_only=True)
        yield from _check_placeholders(field, line.value, env, allow)
