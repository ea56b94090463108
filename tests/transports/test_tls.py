"""TLS: who is trusted, who is not, and how quickly and clearly each failure shows."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
import trio

from tests.transports.servers import (
    CLOSE_1000,
    MakeTransport,
    Request,
    answering,
    authority,
    client_context,
    close,
    failure,
    hold,
    no_leak,
    on_both,
    read_request,
    server_context,
    serving,
    text,
    upgrade,
    upgrading,
)
from trioglock import ConnectFailed, InvalidOption, TLSFailed, connect


@on_both
async def test_a_trusted_server(transport: MakeTransport) -> None:
    """With its authority trusted, a server is reached over TLS and its messages arrive."""

    async def script(stream: trio.abc.Stream) -> None:
        await stream.send_all(upgrade(await read_request(stream)))
        await stream.send_all(text("secret"))
        await close(stream)

    with no_leak():
        async with (
            serving(script, server_context()) as port,
            connect(
                f"wss://127.0.0.1:{port}/", transport=transport(), ssl_context=client_context()
            ) as conn,
        ):
            assert await conn.receive() == "secret"
            assert conn.handshake is not None
            assert conn.handshake.peer == f"127.0.0.1:{port}"


@on_both
async def test_scenario_34_the_first_frame_may_come_with_the_101(transport: MakeTransport) -> None:
    """Frames in the same TLS record as the 101 are delivered."""

    async def script(stream: trio.abc.Stream) -> None:
        request = await read_request(stream)
        await stream.send_all(upgrade(request) + text("early") + text("bird") + CLOSE_1000)
        await stream.receive_some()

    async with (
        serving(script, server_context()) as port,
        connect(
            f"wss://127.0.0.1:{port}/", transport=transport(), ssl_context=client_context()
        ) as conn,
    ):
        assert [message async for message in conn] == ["early", "bird"]


async def test_server_hostname_names_the_certificate() -> None:
    """``server_hostname`` is the certificate's name and the SNI; the Host header is unchanged."""
    asked: list[str | None] = []

    def note(_object: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        asked.append(name)

    context = server_context("feed.example.org")
    context.sni_callback = note
    requests: list[Request] = []
    async with (
        serving(upgrading(requests), context) as port,
        connect(
            f"wss://127.0.0.1:{port}/",
            ssl_context=client_context(),
            server_hostname="feed.example.org",
        ),
    ):
        pass
    assert asked == ["feed.example.org"]
    assert requests[0].headers["Host"] == f"127.0.0.1:{port}"


@pytest.mark.parametrize("trusted", [True, False], ids=["wrong name", "unknown authority"])
async def test_scenario_36_a_certificate_that_does_not_fit(trusted: bool) -> None:
    """A wrong name or an unknown authority is a TLSFailed with its cause."""
    context = server_context("other.example.org" if trusted else "127.0.0.1")
    with no_leak():
        async with serving(hold, context) as port:
            error = await failure(
                f"wss://127.0.0.1:{port}/", ssl_context=client_context() if trusted else None
            )
    assert isinstance(error, TLSFailed)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert "127.0.0.1" in str(error)


async def test_without_a_context_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the system's certificates are trusted, and OpenSSL's own settings count."""
    with authority().cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        async with (
            serving(upgrading([]), server_context()) as port,
            connect(f"wss://127.0.0.1:{port}/"),
        ):
            pass


def asking_for_a_certificate(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    authority().configure_trust(context)
    return context


async def test_a_client_certificate() -> None:
    """A certificate loaded into ``ssl_context`` opens a server that asks for one."""
    context = client_context()
    authority().issue_cert("me@example.org").configure_cert(context)
    async with (
        serving(upgrading([]), asking_for_a_certificate(ssl.TLSVersion.TLSv1_3)) as port,
        connect(f"wss://127.0.0.1:{port}/", ssl_context=context) as conn,
    ):
        assert conn.handshake is not None


async def handshake_with_alerts(stream: trio.abc.Stream, context: ssl.SSLContext) -> None:
    """A server's TLS handshake; unlike trio's it sends the client the reason of a failure."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            await stream.send_all(outgoing.read())
            incoming.write(await stream.receive_some())
        except ssl.SSLError:
            await stream.send_all(outgoing.read())
            return
        else:
            raise AssertionError("the client had a certificate")


@on_both
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_fault_49_a_missing_client_certificate(
    transport: MakeTransport, version: ssl.TLSVersion
) -> None:
    """A missing client certificate is a TLSFailed, also with TLS 1.3, which reports it late."""

    async def script(stream: trio.abc.Stream) -> None:
        await handshake_with_alerts(stream, asking_for_a_certificate(version))
        # Hanging up with the request unread would reset the connection under the alert.
        await hold(stream)

    with no_leak():
        async with serving(script) as port:
            error = await failure(
                f"wss://127.0.0.1:{port}/", transport=transport(), ssl_context=client_context()
            )
    assert isinstance(error, TLSFailed)
    assert isinstance(error.__cause__, ssl.SSLError)
    assert not isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def hang_up_after_the_handshake(stream: trio.abc.Stream) -> None:
    encrypted = trio.SSLStream(stream, server_context(), server_side=True, https_compatible=True)
    await encrypted.do_handshake()


async def hang_up_after_hello(stream: trio.abc.Stream) -> None:
    await stream.receive_some()


async def hang_up(stream: trio.abc.Stream) -> None:
    pass


@on_both
@pytest.mark.parametrize("script", [hang_up, hang_up_after_hello, hang_up_after_the_handshake])
async def test_scenario_36_a_tls_server_that_hangs_up(
    transport: MakeTransport, script: Callable[[trio.abc.Stream], object]
) -> None:
    """A peer that closes at any point of the handshake is reported immediately."""
    with no_leak():
        async with serving(script) as port:  # type: ignore[arg-type]
            error = await failure(
                f"wss://127.0.0.1:{port}/", transport=transport(), ssl_context=client_context()
            )
    assert type(error) is ConnectFailed


async def test_a_server_without_tls() -> None:
    """``wss`` to a plain-text server is a TLSFailed with OpenSSL's text."""

    async def script(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await hold(stream)

    with no_leak():
        async with serving(script) as port:
            error = await failure(f"wss://127.0.0.1:{port}/")
    assert isinstance(error, TLSFailed)
    assert isinstance(error.__cause__, ssl.SSLError)


async def test_a_tls_server_spoken_to_without_tls() -> None:
    """``ws`` to a TLS server is a clear error immediately."""
    async with serving(answering(b""), server_context()) as port:
        error = await failure(f"ws://127.0.0.1:{port}/")
    assert isinstance(error, ConnectFailed)


@pytest.mark.parametrize("wrong", ["a server's context", "an impossible name"])
async def test_a_context_that_cannot_work(wrong: str) -> None:
    """An error of OpenSSL before the handshake is a TLSFailed, and leaks no socket."""
    context = server_context() if wrong == "a server's context" else client_context()
    name = ".example.org" if wrong == "an impossible name" else None
    with no_leak():
        async with serving(hold) as port:
            url = f"wss://127.0.0.1:{port}/"
            with pytest.raises((TLSFailed, InvalidOption)):
                async with connect(url, ssl_context=context, server_hostname=name):
                    pass
