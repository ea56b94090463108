"""``trioglock connect`` through pipes: lines in, messages out, nothing else on stdout."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.cli.helpers import COMMAND, SECONDS, environment, opened, run_command, started
from trioglock.cli.connect import MAX_QUEUED_BYTES
from trioglock.cli.line_reader import MAX_LINE
from trioglock.testing import MockPeer, MockServer, echo

QUEUE = MAX_QUEUED_BYTES // 2**20
"""Messages of the default maximum size that the command holds."""

pytestmark = pytest.mark.usefixtures("short_wait")


async def answers(*arguments: str, stdin: str | bytes) -> Sequence[str]:
    """Return what an echo server answers; stderr is empty and the exit code 0."""
    async with MockServer(echo) as server:
        done = await run_command("connect", server.url, *arguments, stdin=stdin)
    assert (done.code, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("stdin", "lines"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\r\ntwo", ["one", "two"]),
        ("\n/ping\n", ["", "/ping"]),
        ("ü€😀\n", ["ü€😀"]),
        ("", []),
    ],
    ids=["two", "the last without an end", "empty and slash", "Unicode", "nothing"],
)
async def test_each_line_is_a_message(stdin: str, lines: Sequence[str]) -> None:
    """Also an empty line or one with a slash; the last answer is not lost."""
    assert await answers(stdin=stdin) == lines


@pytest.mark.slow
async def test_many_lines() -> None:
    """No line is lost, and their order is kept."""
    lines = [f"line {number}" for number in range(1500)]  # more than QUEUE
    # On a busy machine, the answers may stop for longer than the usual time.
    assert await answers("--wait", "2", stdin="\n".join(lines)) == lines


async def test_once() -> None:
    """The input is sent, the first message printed, and the connection closed with 1000."""
    async with MockServer() as server, trio.open_nursery() as nursery:

        async def script() -> None:
            peer = await server.accept()
            await peer.expect("one", "two")
            await peer.send("first")
            with suppress(ConnectionClosed):  # after the first message
                await peer.send("second")
            await peer.expect_close(1000)

        nursery.start_soon(script)
        done = await run_command("connect", server.url, "--once", stdin="one\ntwo\n")
    assert (done.code, done.stdout, done.stderr) == (0, "first\n", "")


async def test_messages_during_the_close() -> None:
    """They are printed until the peer confirms, also with --wait 0."""
    lines = [f"late {number}" for number in range(100)]
    async with MockServer() as server, opened("connect", server.url, "--wait", "0") as running:
        peer = await server.accept()
        held: list[bytes] = []

        async def hold(data: bytes) -> None:
            held.append(data)

        async def release(data: bytes) -> None:
            late = [*held, data]
            held.clear()
            await send_all(b"".join(late))

        send_all = peer.stream.send_all
        peer.stream.send_all = hold  # type: ignore[method-assign, assignment]
        await peer.send(*lines)
        # The next write is the answer to the Close frame.
        peer.stream.send_all = release  # type: ignore[method-assign, assignment]
        await running.end_input()
        await peer.expect_close(1000)
        done = await running.finish()
    assert (done.code, done.stdout.splitlines()) == (0, lines)


async def ticks(peer: MockPeer) -> None:
    """Send messages without end."""
    with suppress(ConnectionClosed):
        while True:
            await peer.send("tick")
            await trio.sleep(0.01)


@pytest.mark.slow
async def test_binary_messages() -> None:
    """They are printed as digits; with --raw they are written unchanged."""
    async with MockServer() as server:
        for arguments, expected in (((), "binary:00ff41\ntext\n"), (("--raw",), b"\0\xffAtext\n")):
            async with opened("connect", server.url, *arguments) as running:
                peer = await server.accept()
                await peer.send(b"\x00\xffA", "text")
                await running.end_input()
                got = b"".join([chunk async for chunk in running.stdout])
                assert got == (expected.encode() if isinstance(expected, str) else expected)


async def test_control_characters() -> None:
    """A pipe gets messages unchanged."""
    async with MockServer() as server, opened("connect", server.url) as running:
        peer = await server.accept()
        await peer.send("a\x1b[31mb\tc\nd")
        assert [await running.line(), await running.line()] == ["a\x1b[31mb\tc", "d"]


async def test_a_closed_output() -> None:
    """``| head -1`` closes with 1000 and prints no error."""
    async with MockServer() as server, trio.open_nursery() as nursery:

        async def script() -> None:
            peer = await server.accept()
            nursery.start_soon(ticks, peer)
            await peer.expect_close(1000)
            nursery.cancel_scope.cancel()

        nursery.start_soon(script)
        async with opened("connect", server.url, "--wait", "inf") as running:
            assert await running.line() == "tick"
            await running.stdout.aclose()
            assert await running.wait() == 0
            assert await running.stderr.receive_some(1) == b""
        await trio.sleep_forever()


async def test_a_slow_reader() -> None:
    """While stdout is not read, pings are answered until the queue is full."""
    text = "x" * 1000
    lines = [text] * 200  # more than a pipe holds
    assert len(lines) < QUEUE
    async with MockServer() as server, opened("connect", server.url) as running:
        peer = await server.accept()
        await peer.send(*lines)
        await peer.ping()
        await running.end_input()
        assert (await running.finish()).stdout.splitlines() == lines


@pytest.mark.slow
async def test_a_full_queue() -> None:
    """Then the network is not read until stdout is; no message is lost."""
    lines = [f"{number} ".ljust(1000, "x") for number in range(20 * QUEUE)]
    async with (
        MockServer() as server,
        opened("connect", server.url) as running,
        trio.open_nursery() as nursery,
    ):
        peer = await server.accept()
        nursery.start_soon(peer.send, *lines)
        while len(peer.sent) < QUEUE:
            await trio.sleep(0.01)
        for line in lines:
            assert await running.line() == line


@pytest.mark.slow
async def test_a_stopped_reader() -> None:
    """A signal closes the connection and ends the command all the same."""
    async with MockServer() as server, started("connect", server.url) as running:
        peer = await server.accept()
        await running.type("hi")
        await peer.expect("hi")
        await peer.send(*["x" * 1000] * 200)
        running.process.send_signal(signal.SIGTERM)
        await peer.expect_close(1001)
        assert await running.process.wait() == 143


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.slow
async def test_an_output_that_cannot_be_written() -> None:
    """The exit code is 1, and a line gives the reason."""
    async with MockServer(echo) as server:
        with trio.fail_after(SECONDS), Path("/dev/full").open("wb") as full:
            done = await trio.run_process(
                [*COMMAND, "connect", server.url],
                stdin=b"hi\n",
                stdout=full,
                capture_stderr=True,
                check=False,
                env=environment(),
            )
    assert done.returncode == 1
    assert done.stderr == b"! cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&- >&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.slow
async def test_standard_streams_that_are_closed(closed: str) -> None:
    """The command ends normally whichever stream the shell has closed."""
    async with MockServer(echo) as server:
        script = f'exec "$@" {closed}'
        with trio.fail_after(SECONDS):
            done = await trio.run_process(
                ["sh", "-c", script, "sh", *COMMAND, "connect", server.url],
                stdin=b"hi\n",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=environment(),
            )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (b"hi\n" if closed == "2>&-" else b"")


async def test_an_input_that_is_not_utf8() -> None:
    """Earlier lines are sent; an error names the position, and the exit code is 1."""
    async with MockServer(echo) as server:
        done = await run_command("connect", server.url, stdin=b"good\nb\xffd\nnever\n")
        assert server.peers[0].received == ["good"]
    assert (done.code, done.stderr) == (1, "! line 2 of the input is not UTF-8 at byte 2\n")


@pytest.mark.slow
async def test_a_line_that_is_too_long() -> None:
    """It is an error."""
    async with MockServer(echo) as server:
        done = await run_command("connect", server.url, stdin=Path("/dev/zero"))
    assert done.code == 1
    assert done.stderr == f"! a line of the input is longer than {MAX_LINE} bytes\n"


@pytest.mark.slow
async def test_a_non_blocking_input() -> None:
    """A pipe that another process has made non-blocking is read all the same."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    async with MockServer(echo) as server:
        with trio.fail_after(SECONDS):
            process = await trio.lowlevel.open_process(
                [*COMMAND, "connect", server.url, "--once"],
                stdin=read,
                stdout=subprocess.PIPE,
                env=environment(),
            )
            os.close(read)
            assert process.stdout is not None
            async with process.stdout as stdout:
                while not server.peers:
                    await trio.sleep(0.01)
                os.write(write, b"hi\n")
                os.close(write)
                assert await stdout.receive_some() == b"hi\n"
                assert await process.wait() == 0


async def test_a_close_while_the_input_is_open() -> None:
    """The command ends without another line."""
    async with MockServer() as server, opened("connect", server.url) as running:
        peer = await server.accept()
        await running.type("one")
        await peer.expect("one")
        await peer.close(1000, "enough")
        done = await running.finish()
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
