"""Names, forbidden addresses, TLS, and the limit for all of it."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from endpoints.addressing import Origin
from endpoints.dialing import name_failure
from endpoints.transport import (
    TLS,
    Limits,
    LostMidBody,
    NotConnected,
    NotConnectedReason,
    Target,
)
from tests.endpoints.door import GET, open_transport, settle
from tests.fakes import Conn, Framing, Reply, ScriptedBackend, Silence, make_certificates, refused_origin

HI = Reply(body=b"hi")


def resolve_to(*addresses: str):
    """A resolver that knows one answer."""

    async def resolver(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolver


async def failure_of(transport, target: Target, connect: float = 5) -> NotConnectedReason:
    """Why this target cannot be connected to."""
    with pytest.raises(NotConnected) as caught:
        await transport.send(target, GET, Limits(connect=connect))
    return caught.value.reason


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1", "100.100.100.200", "0.0.0.0"],
)
async def test_it_refuses_forbidden_addresses_written_out(host):
    async with open_transport() as transport:
        reason = await failure_of(transport, Target(Origin("http", host, 80)))
    assert reason is NotConnectedReason.FORBIDDEN_ADDRESS


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1%lo", "fd00:ec2::254", "::"],
)
async def test_it_refuses_names_that_resolve_to_forbidden_addresses(address):
    async with open_transport(resolver=resolve_to(address)) as transport:
        reason = await failure_of(transport, Target(Origin("http", "backend.test", 80)))
    assert reason is NotConnectedReason.FORBIDDEN_ADDRESS


@pytest.mark.parametrize("name", ["2852039166", "0xa9fea9fe", "169.254.43518"])
async def test_it_refuses_odd_spellings_of_forbidden_addresses(name):
    async with open_transport() as transport:
        reason = await failure_of(transport, Target(Origin("http", name, 80)))
    assert reason is NotConnectedReason.FORBIDDEN_ADDRESS


async def test_it_connects_to_the_allowed_address_of_a_mixed_answer():
    async with (
        ScriptedBackend(HI) as backend,
        open_transport(resolver=resolve_to("169.254.169.254", "127.0.0.1")) as transport,
    ):
        answer = await transport.send(Target(Origin("http", "backend.test", backend.port)), GET)
        assert await answer.read() == b"hi"


async def test_it_checks_the_name_again_for_every_connection():
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def resolver(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async with (
        ScriptedBackend(Reply(body=b"hi", close=True)) as backend,
        open_transport(resolver=resolver) as transport,
    ):
        target = Target(Origin("http", "backend.test", backend.port))
        await (await transport.send(target, GET)).read()
        await settle(lambda: transport.count_connections() == (0, 0))
        assert await failure_of(transport, target) is NotConnectedReason.FORBIDDEN_ADDRESS
        assert backend.connections == 1


async def test_it_tries_the_next_address():
    async with (
        ScriptedBackend(HI) as backend,
        open_transport(resolver=resolve_to("::1", "127.0.0.1")) as transport,
    ):
        answer = await transport.send(Target(Origin("http", "backend.test", backend.port)), GET)
        assert await answer.read() == b"hi"


async def test_it_tries_the_address_that_worked_last_first():
    async with ScriptedBackend([Reply(body=b"hi", close=True), HI]) as backend:
        resolver = resolve_to("127.0.0.2", "127.0.0.1")
        async with open_transport(resolver=resolver) as transport:
            target = Target(Origin("http", "backend.test", backend.port))
            await (await transport.send(target, GET)).read()
            assert transport._dialer._preferred[target.key] == "127.0.0.1"
            await settle(lambda: transport.count_connections() == (0, 0))
            assert await (await transport.send(target, GET)).read() == b"hi"


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), OSError("x"), UnicodeError("label too long")])
async def test_it_names_a_name_that_does_not_resolve(error):
    async def resolver(host: str, port: int) -> list[str]:
        raise error

    async with open_transport(resolver=resolver) as transport:
        assert await failure_of(transport, Target(Origin("http", "no.test", 80))) is NotConnectedReason.DNS


async def test_it_names_a_name_without_addresses():
    async with open_transport(resolver=resolve_to()) as transport:
        assert await failure_of(transport, Target(Origin("http", "no.test", 80))) is NotConnectedReason.DNS


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EHOSTUNREACH, NotConnectedReason.UNREACHABLE),
        (errno.ENETUNREACH, NotConnectedReason.UNREACHABLE),
        (errno.ETIMEDOUT, NotConnectedReason.TIMEOUT),
        (errno.ECONNREFUSED, NotConnectedReason.REFUSED),
        (errno.EMFILE, NotConnectedReason.LOCAL),
        (errno.EADDRNOTAVAIL, NotConnectedReason.LOCAL),
    ],
)
def test_it_names_what_the_system_says(number, reason):
    # Not provoked on a real network: no test contacts anything beyond loopback.
    assert name_failure(OSError(number, "x"), Origin("http", "backend.test", 80)).reason is reason


async def test_it_counts_resolving_against_the_connect_limit():
    async def resolver(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with open_transport(resolver=resolver) as transport:
        reason = await failure_of(transport, Target(Origin("http", "slow.test", 80)), 0.05)
    assert reason is NotConnectedReason.TIMEOUT


async def test_it_counts_the_handshake_against_the_connect_limit():
    async def script(conn: Conn) -> None:
        await conn.gone.wait()

    async with ScriptedBackend(script) as backend, open_transport() as transport:
        target = Target(Origin("https", "127.0.0.1", backend.port))
        await transport._dialer._context(target.tls)  # reading the system's authorities takes its time, once
        assert await failure_of(transport, target, 1.0) is NotConnectedReason.TIMEOUT
        await backend.wait_closed(1)


async def test_it_names_a_connection_closed_before_the_request():
    async def script(conn: Conn) -> None:
        conn.reset()

    async with ScriptedBackend(script) as backend, open_transport() as transport:
        target = Target(Origin("https", "127.0.0.1", backend.port))
        assert await failure_of(transport, target) is NotConnectedReason.TLS


async def test_it_names_plain_http_where_tls_was_expected():
    async def script(conn: Conn) -> None:
        conn.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await conn.gone.wait()

    async with ScriptedBackend(script) as backend, open_transport() as transport:
        assert (
            await failure_of(transport, Target(Origin("https", "127.0.0.1", backend.port)))
            is NotConnectedReason.TLS
        )


async def test_it_trusts_the_given_authority(tmp_path):
    files = make_certificates(tmp_path)
    async with ScriptedBackend(HI, tls=files) as backend, open_transport() as transport:
        target = Target(backend.origin, TLS(ca_file=files.ca_file))
        first = await transport.send(target, GET)
        assert await first.read() == b"hi"
        second = await transport.send(target, GET)
        assert (await second.read(), second.reused) == (b"hi", True)


@pytest.mark.parametrize("fault", ["unknown authority", "expired", "other name", "no such file"])
async def test_it_refuses_certificates_that_prove_nothing(tmp_path, fault):
    names = ("other.test",) if fault == "other name" else ("127.0.0.1",)
    files = make_certificates(tmp_path, names=names, expired=fault == "expired")
    ca_file = {"unknown authority": "", "no such file": str(Path(tmp_path) / "none.pem")}.get(fault, files.ca_file)
    async with ScriptedBackend(HI, tls=files) as backend, open_transport() as transport:
        assert await failure_of(transport, Target(backend.origin, TLS(ca_file=ca_file))) is NotConnectedReason.TLS
        assert backend.requests == []


@pytest.mark.parametrize("expired", [False, True])
async def test_it_can_be_told_not_to_verify(tmp_path, expired):
    files = make_certificates(tmp_path, names=("other.test",), expired=expired)
    async with ScriptedBackend(HI, tls=files) as backend, open_transport() as transport:
        answer = await transport.send(Target(backend.origin, TLS(verify=False)), GET)
        assert await answer.read() == b"hi"


async def test_it_checks_the_name_and_connects_to_the_address(tmp_path):
    files = make_certificates(tmp_path, names=("backend.test",))
    async with (
        ScriptedBackend(HI, tls=files) as backend,
        open_transport(resolver=resolve_to("127.0.0.1")) as transport,
    ):
        target = Target(Origin("https", "backend.test", backend.port), TLS(ca_file=files.ca_file))
        assert await (await transport.send(target, GET)).read() == b"hi"


@pytest.mark.parametrize("orderly", [False, True])
async def test_it_believes_the_end_of_an_undeclared_body_over_tls_only_when_it_is_said(tmp_path, orderly):
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.write(Reply(framing=Framing.CLOSE).head() + b"part")
        await asyncio.sleep(0.02)
        if orderly:
            conn.close()
        else:
            conn.transport.abort()  # FIN without close_notify

    files = make_certificates(tmp_path)
    async with ScriptedBackend(script, tls=files) as backend, open_transport() as transport:
        answer = await transport.send(Target(backend.origin, TLS(ca_file=files.ca_file)), GET)
        if orderly:
            assert await answer.read() == b"part"
        else:
            with pytest.raises(LostMidBody):
                await answer.read()


async def test_it_closes_a_tls_connection_at_once_when_the_answer_is_dropped(tmp_path):
    files = make_certificates(tmp_path)
    async with ScriptedBackend(Silence(), tls=files) as backend, open_transport() as transport:
        task = asyncio.ensure_future(transport.send(Target(backend.origin, TLS(verify=False)), GET))
        await backend.wait_requests(1)
        task.cancel()
        await backend.wait_closed(1)
        assert task.cancelled()


async def test_it_does_not_ask_the_environment_for_a_proxy(monkeypatch):
    with refused_origin() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with ScriptedBackend(HI) as backend, open_transport() as transport:
            assert await (await transport.send(Target(backend.origin), GET)).read() == b"hi"
