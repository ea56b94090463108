"""``trioglock connect``: options, exit codes and secrets."""

from __future__ import annotations

import re
import signal
import ssl
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from websockets import Subprotocol
from websockets.trio.server import Server, ServerConnection, serve

from tests.cli.helpers import opened, run_command, started
from trioglock.testing import MockPeer, MockServer, echo

pytestmark = pytest.mark.usefixtures("short_wait")

# Exit codes.


async def test_closed_by_the_peer() -> None:
    """Stderr has a line with the code and the reason."""

    async def script(peer: MockPeer) -> None:
        await peer.close(4000, "a\x1b[31mb\nc")

    async with MockServer(script) as server:
        done = await run_command("connect", server.url, "--wait", "inf")
    stderr = "! closed by the peer: 4000 a\\x1b[31mb\\nc\n"
    assert (done.code, done.stdout, done.stderr) == (1, "", stderr)


async def test_connection_refused() -> None:
    """If no server listens, the exit code is 3."""
    with trio.socket.socket() as socket:
        await socket.bind(("127.0.0.1", 0))
        port = socket.getsockname()[1]
        done = await run_command("connect", f"ws://127.0.0.1:{port}/")
    stderr = (
        f"! could not connect: cannot connect to 127.0.0.1:{port}: Connection refused; "
        "is the server running, and on this port?\n"
    )
    assert (done.code, done.stdout, done.stderr) == (3, "", stderr)


async def test_an_unknown_host() -> None:
    """The exit code is 3, with one line."""
    done = await run_command("connect", "ws://unknown.invalid/")
    assert done.code == 3
    assert done.stderr.startswith("! could not connect: cannot connect to unknown.invalid:80: ")
    assert done.stderr.count("\n") == 1


async def test_the_connect_timeout() -> None:
    """If the server does not answer within --connect-timeout, the exit code is 3."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        done = await run_command("connect", f"ws://127.0.0.1:{port}/", "--connect-timeout", "0.3")
    assert (done.code, done.stderr) == (3, "! could not connect: timed out after 0.3 seconds\n")


async def test_failed_attempts() -> None:
    """With --reconnect every failed attempt is printed; a final refusal is 3."""
    async with MockServer() as server:
        server.reject(503, times=2)
        server.reject(401)
        done = await run_command("connect", server.url, "--reconnect")
    assert done.code == 3
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all("refused the handshake: 503" in line for line in lines[:2])
    whens = ("; next attempt in ", "; reconnecting now")
    assert all(line.startswith("* ") and any(w in line for w in whens) for line in lines[:2])
    assert lines[2].startswith("! could not connect: the server refused the handshake: 401")


@pytest.mark.slow
async def test_ctrl_c() -> None:
    """Ctrl-C closes with 1000; the exit code is 130."""
    async with MockServer() as server, started("connect", server.url) as running:
        peer = await server.accept()
        await running.type("hi")
        await peer.expect("hi")
        running.interrupt()
        await peer.expect_close(1000)
        done = await running.finish()
    assert (done.code, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.slow
async def test_nohup() -> None:
    """An ignored SIGHUP stays ignored."""
    async with MockServer(echo) as server:
        # The process inherits it.
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            async with started("connect", server.url) as running:
                await running.type("one")
                assert await running.line() == "one"
                running.process.send_signal(signal.SIGHUP)
                await running.type("two")
                assert await running.line() == "two"
                await running.end_input()
                assert (await running.finish()).code == 0
        finally:
            signal.signal(signal.SIGHUP, before)


# Options.


async def test_the_request() -> None:
    """The server gets the headers, the subprotocols in order, and the origin."""
    arguments = ("-H", "X-One: 1", "--header", "x-two:2", "-s", "b", "--subprotocol", "a")
    async with MockServer(echo, subprotocol="a") as server:
        await run_command("connect", server.url, *arguments, "--origin", "https://example.org")
        [peer] = server.peers
    assert (peer.request_headers["X-One"], peer.request_headers["X-Two"]) == ("1", "2")
    assert peer.request_headers["Origin"] == "https://example.org"
    assert peer.subprotocols == ("b", "a")


async def test_a_server_of_websockets() -> None:
    """Subprotocol, compression and --max-size work with another implementation."""
    seen = []

    async def handle(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        offered = "permessage-deflate" in websocket.request.headers.get(
            "Sec-WebSocket-Extensions", ""
        )
        seen.append((websocket.subprotocol, offered))
        async for message in websocket:
            await websocket.send(message * 2)

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(serve, handle, 0, host="127.0.0.1", subprotocols=[Subprotocol("chat")])
        )
        url = f"ws://127.0.0.1:{server.listeners[0].socket.getsockname()[1]}/"
        done = await run_command("connect", url, "-s", "chat", stdin="a\nb\n")
        assert (done.code, done.stdout) == (0, "aa\nbb\n")
        more = ("-s", "chat", "--no-compression", "--max-size", "10")
        done = await run_command("connect", url, *more, stdin="12345\n123456\n")
        assert (done.code, done.stdout) == (1, "1234512345\n")
        expected = "! limit exceeded by the peer: 1009 a message is larger than max_size ("
        assert done.stderr.startswith(expected)
        nursery.cancel_scope.cancel()
    assert seen == [("chat", True), ("chat", False)]


async def test_tls(tmp_path: Path) -> None:
    """An unknown certificate is refused unless --ca or --insecure allows it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with MockServer(echo, ssl_context=context) as server:
        for more in (("--insecure",), ("--ca", tmp_path / "ca.pem")):
            done = await run_command("connect", server.url, "--once", *more, stdin="hi")
            assert (done.code, done.stdout, done.stderr) == (0, "hi\n", "")
    async with MockServer(ssl_context=context) as server:
        done = await run_command("connect", server.url)
    assert done.code == 3
    assert done.stderr.startswith("! could not connect: TLS handshake with 127.0.0.1: ")
    assert "certificate" in done.stderr


async def test_pings() -> None:
    """--ping-interval sets the interval; the trace shows each ping."""
    async with (
        MockServer() as server,
        opened("connect", server.url, "--ping-interval", "0.05", "--trace") as running,
    ):
        await running.read_errors(b"sending frame: Ping", 3)
        await running.end_input()
        assert (await running.finish()).code == 0


@pytest.mark.slow
async def test_the_close_timeout() -> None:
    """If the peer does not confirm within --close-timeout, the exit code is 1."""
    async with (
        MockServer() as server,
        opened("connect", server.url, "--close-timeout", "0.2") as running,
    ):
        peer = await server.accept()
        await running.type("hi")
        await peer.expect("hi")
        peer.stream.send_all = lambda *_: trio.sleep_forever()  # type: ignore[method-assign]
        await running.end_input()
        done = await running.finish()
    assert (done.code, done.stderr) == (1, "! closed: 1000; the peer did not answer\n")


async def test_the_trace(tmp_path: Path) -> None:
    """It is printed on stderr with marks, or written to a private file."""
    async with MockServer(echo) as server:
        done = await run_command("connect", server.url, "--trace", "--once", stdin="hi")
        assert (done.code, done.stdout) == (0, "hi\n")
        lines = done.stderr.splitlines()
        assert len(lines) > 4
        assert all(line.startswith(": ") for line in lines)
        assert any("received frame: 'hi'" in line for line in lines)
        file = tmp_path / "trace"
        done = await run_command("connect", server.url, "--trace-file", file, "--once", stdin="hi")
    assert file.stat().st_mode & 0o077 == 0  # it contains messages
    assert (done.code, done.stdout, done.stderr) == (0, "hi\n", "")
    assert "received frame: 'hi'" in (text := file.read_text())
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} "
    assert all(re.match(stamp, line) for line in text.splitlines())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_fault_48_a_trace_that_cannot_be_written_is_one_line() -> None:
    """The conversation goes on without it."""
    async with MockServer(echo) as server:
        options = ("--trace-file", "/dev/full", "--once")
        done = await run_command("connect", server.url, *options, stdin="hi")
    assert (done.code, done.stdout) == (0, "hi\n")
    assert done.stderr == "! cannot write the trace to /dev/full: No space left on device\n"


@pytest.mark.slow
async def test_an_outage() -> None:
    """With --reconnect the loss, the delay and the reconnect are printed; no line is lost."""
    async with MockServer() as server, opened("connect", server.url, "--reconnect") as running:
        peer = await server.accept()
        await peer.abort()
        peer = await server.accept()
        await running.type("hi")
        await peer.expect("hi")
        await running.end_input()
        await peer.expect_close(1000)
        done = await running.finish()
    assert done.code == 0
    lost, back = done.stderr.splitlines()
    assert lost.startswith("* connection lost: ")
    assert "; next attempt in 0." in lost or "; reconnecting now" in lost
    assert back == "* reconnected"


# JSON.


async def test_fault_35_json_in_a_pipe_is_one_message_a_line() -> None:
    """Line breaks are removed, and nothing else changes: neither numbers nor repeated keys."""
    laid_out = '{\n  "a": [1.10,\r\n\t1e999],\n  "a": "\u2028\\n"\n}\n'

    async def script(peer: MockPeer) -> None:
        await peer.send(laid_out, "two\nlines")
        await peer.expect_close(1000)

    async with MockServer(script) as server:
        done = await run_command("connect", server.url, "--json")
    assert done.stdout == '{ "a": [1.10, 1e999], "a": "\u2028\\n" } \ntwo\nlines\n'


async def test_json() -> None:
    """A line that is not JSON is not sent."""
    lines = ['{"a": [1, "ü"]}', '{"a": }', "", "NaN", "[" * 100_000, "1" * 5000, "true"]
    async with MockServer(echo) as server:
        done = await run_command("connect", server.url, "--json", stdin="\n".join(lines))
        sent = server.peers[0].received
    assert sent == [lines[0], lines[5], lines[6]]
    assert done.stdout == f"{lines[0]}\n{lines[5]}\ntrue\n"
    problem = "not sent, invalid JSON:"
    assert done.stderr.splitlines() == [
        f"! line 2: {problem} Expecting value at column 7",
        f"! line 3: {problem} Expecting value at column 1",
        f"! line 4: {problem} NaN is not JSON at column 1",
        f"! line 5: {problem} nested too deeply",
    ]
    assert done.code == 1


async def test_received_text_that_is_not_json() -> None:
    """It is printed unchanged."""

    async def script(peer: MockPeer) -> None:
        await peer.send("{no json", b"\0")
        await peer.expect_close(1000)

    async with MockServer(script) as server:
        done = await run_command("connect", server.url, "--json")
    assert (done.code, done.stdout) == (0, "{no json\nbinary:00\n")


# Secrets.


@pytest.mark.parametrize("failure", ["none", "refused", "unknown host", "usage"])
async def test_secrets_stay_secret(failure: str) -> None:
    """No output contains the password, the token or the credentials."""
    secrets = ("s3cret-password", "s3cret-token", "s3cret-bearer", "s3cret-cookie")
    password, token, bearer, cookie = secrets
    async with MockServer(echo) as server:
        host = server.url.removeprefix("ws://").rstrip("/")
        match failure:
            case "refused":
                server.reject(401, headers={"Set-Cookie": f"a={cookie}"})
            case "unknown host":
                host = "unknown.invalid"
            case "usage":
                host = "host:port"
        done = await run_command(
            *("connect", f"ws://al:{password}@{host}/path?token={token}&x={token}"),
            *("-H", f"Authorization: Bearer {bearer}", "-H", f"Cookie: a={cookie}", "--trace"),
            stdin="hi\n",
        )
        if failure == "none":
            headers = server.peers[0].request_headers
            assert (headers["Cookie"], done.stdout) == (f"a={cookie}", "hi\n")
    assert done.code == {"none": 0, "usage": 2}.get(failure, 3)
    assert done.stderr
    for secret in secrets:
        assert secret not in done.stdout + done.stderr


async def test_a_header_without_quotes() -> None:
    """The error does not show the token."""
    for arguments in (
        ("ws://host/", "-H", "Authorization:", "Bearer", "s3cret"),
        ("ws://host/", "-H", "Bearer s3cret"),
        ("ws://host/", "-H", "s3cret bearer: x"),
    ):
        done = await run_command("connect", *arguments)
        assert done.code == 2
        assert "s3cret" not in done.stdout + done.stderr
