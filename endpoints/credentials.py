"""What an endpoint's stored credentials become: headers and TLS options, or why they cannot be used.

Environment variables, secret files and CA files are looked up here, each time a snapshot is built or a probe sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from endpoints.addressing import TLS, build_auth_headers, merge_headers
from endpoints.ca_files import CaFileError, resolve_ca_file
from endpoints.conf import conf
from endpoints.fields import UnreadableSecret
from endpoints.models import AuthType, Endpoint
from endpoints.secret_files import read_secret_file
from endpoints.secrets import Secret, SecretError, expand_placeholders, file_names

SYSTEM_TLS = TLS()
Headers = tuple[tuple[bytes, Secret], ...]


@dataclass(frozen=True, slots=True)
class Access:
    """How an endpoint is reached; with a `problem` it is not, and no credential is at hand."""

    headers: Headers = ()
    tls: TLS = SYSTEM_TLS
    problem: str = ""


def read_access(endpoint: Endpoint, env: Mapping[str, str]) -> Access:
    """Everything resolved. A problem names what is missing, never a value."""
    try:
        ca_file = resolve_ca_file(endpoint.ca_file) if endpoint.verify_tls else ""
        return Access(_read_headers(endpoint, env), TLS(endpoint.verify_tls, ca_file))
    except UnicodeError:
        return Access(problem="The name of a header holds characters HTTP does not allow.")
    except (SecretError, CaFileError) as error:
        return Access(problem=str(error))


def _read_headers(endpoint: Endpoint, env: Mapping[str, str]) -> Headers:
    """The headers of credentials and extra headers, placeholders expanded. Raises SecretError."""
    if any(isinstance(secret, UnreadableSecret) for secret in _stored(endpoint)):
        raise SecretError("The stored credentials cannot be decrypted: enter them again.")
    if endpoint.auth_type == AuthType.NONE and not endpoint.extra_headers:
        return ()
    allow = conf().env_allow

    def expand(secret: Secret) -> Secret:
        return Secret(expand_placeholders(secret.reveal(), env, allow, read_secret_file))

    auth = build_auth_headers(
        endpoint.auth_type, endpoint.auth_header, expand(endpoint.auth_username), expand(endpoint.auth_secret)
    )
    extra = []
    for line in endpoint.extra_headers.reveal().splitlines():
        name, _, value = line.partition(":")
        if name.strip():
            extra.append((name.strip().encode("latin-1"), expand(Secret(value.strip()))))
    return merge_headers(extra, auth)


def secret_files_of(endpoint: Endpoint) -> list[str]:
    """The secret files that an endpoint's credentials name."""
    return [name for secret in _stored(endpoint) if secret for name in file_names(secret.reveal())]


def _stored(endpoint: Endpoint) -> tuple[Secret, ...]:
    return endpoint.auth_username, endpoint.auth_secret, endpoint.extra_headers
