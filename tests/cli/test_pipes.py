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

from tests.cli.helpers import COMMAND, SECONDS, environment, run_command, started
from trioglock.cli.connect import MAX_QUEUE
from trioglock.cli.pipe import MAX_LINE
from trioglock.testing import MockPeer, MockServer, echo


async def answers(*arguments: str, stdin: str | bytes) -> Sequence[str]:
    """What an echo server answers to this input; stderr is empty, the end is good."""
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
    """Whatever it says; the answer to the last one is not lost."""
    assert await answers(stdin=stdin) == lines


async def test_many_lines() -> None:
    """None is lost, and their order is kept."""
    lines = [f"line {number}" for number in range(5000)]
    assert await answers(stdin="\n".join(lines)) == lines


async def test_once() -> None:
    """The input is sent, the first message printed, and the connection closed with 1000."""
    async with MockServer() as server, trio.open_nursery() as nursery:

        async def script() -> None:
            peer = await server.accept()
            await peer.expect("one", "two")
            await peer.send("first", "second")
            await peer.expect_close(1000)

        nursery.start_soon(script)
        done = await run_command("connect", server.url, "--once", stdin="one\ntwo\n")
    assert (done.code, done.stdout, done.stderr) == (0, "first\n", "")


async def test_what_comes_while_it_closes_is_printed() -> None:
    """Until the peer confirms, with --wait 0 as well."""
    lines = [f"late {number}" for number in range(100)]
    async with MockServer() as server, started("connect", server.url, "--wait", "0") as running:
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
        # What is written next is the answer to the Close frame.
        peer.stream.send_all = release  # type: ignore[method-assign, assignment]
        await running.end_input()
        await peer.expect_close(1000)
        done = await running.finish()
    assert (done.code, done.stdout.splitlines()) == (0, lines)


async def ticks(peer: MockPeer) -> None:
    """A feed that is never quiet."""
    with suppress(ConnectionClosed):
        while True:
            await peer.send("tick")
            await trio.sleep(0.01)


async def test_binary_messages() -> None:
    """Digits behind a mark; with --raw they are written as they are."""
    async with MockServer() as server:
        for arguments, expected in (((), "binary:00ff41\ntext\n"), (("--raw",), b"\0\xffAtext\n")):
            async with started("connect", server.url, *arguments) as running:
                peer = await server.accept()
                await peer.send(b"\x00\xffA", "text")
                await running.end_input()
                assert running.process.stdout is not None
                got = b"".join([chunk async for chunk in running.process.stdout])
                assert got == (expected.encode() if isinstance(expected, str) else expected)


async def test_a_message_as_it_was_sent() -> None:
    """A pipe gets what the peer sent, control characters and all."""
    async with MockServer() as server, started("connect", server.url) as running:
        peer = await server.accept()
        await peer.send("a\x1b[31mb\tc\nd")
        assert [await running.line(), await running.line()] == ["a\x1b[31mb\tc", "d"]


async def test_a_reader_that_goes_away() -> None:
    """``| head -1`` ends it with 1000, quietly."""
    async with MockServer() as server, trio.open_nursery() as nursery:

        async def script() -> None:
            peer = await server.accept()
            nursery.start_soon(ticks, peer)
            await peer.expect_close(1000)
            nursery.cancel_scope.cancel()

        nursery.start_soon(script)
        async with started("connect", server.url, "--wait", "inf") as running:
            assert await running.line() == "tick"
            assert running.process.stdout is not None
            await running.process.stdout.aclose()
            await running.process.wait()
            assert running.process.stderr is not None
            assert await running.process.stderr.receive_some() == b""
            assert running.process.returncode == 0
        await trio.sleep_forever()


async def test_a_slow_reader_stops_nothing_else() -> None:
    """While nobody reads stdout, pings are answered, as long as the queue holds what comes."""
    text = "x" * 1000
    lines = [text] * 200  # more than a pipe holds
    assert len(lines) < MAX_QUEUE
    async with MockServer() as server, started("connect", server.url) as running:
        peer = await server.accept()
        await peer.send(*lines)
        await peer.ping()
        await running.end_input()
        assert (await running.finish()).stdout.splitlines() == lines


async def test_more_than_the_queue_holds() -> None:
    """Then nothing more is read from the network until somebody reads stdout; nothing is lost."""
    lines = [f"{number} ".ljust(1000, "x") for number in range(5 * MAX_QUEUE)]
    async with (
        MockServer() as server,
        started("connect", server.url) as running,
        trio.open_nursery() as nursery,
    ):
        peer = await server.accept()
        nursery.start_soon(peer.send, *lines)
        while len(peer.sent) < MAX_QUEUE:
            await trio.sleep(0.01)
        for line in lines:
            assert await running.line() == line


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
async def test_a_reader_that_stands_still(name: str) -> None:
    """A signal ends the program all the same, in good order."""
    async with MockServer() as server, started("connect", server.url) as running:
        peer = await server.accept()
        await running.type("hi")
        await peer.expect("hi")
        await peer.send(*["x" * 1000] * 200)
        running.process.send_signal(signal.Signals[name])
        await peer.expect_close(1000 if name == "SIGINT" else 1001)
        assert await running.process.wait() == 128 + signal.Signals[name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
async def test_an_output_that_cannot_be_written() -> None:
    """The exit code is 1, and a line tells why."""
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
    assert done.stderr == b"! stdout cannot be written: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_standard_streams_that_are_closed(closed: str) -> None:
    """It ends in good order whichever of them the shell has closed."""
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
    """What comes before is sent; a line names the place, and the exit code is 1."""
    async with MockServer(echo) as server:
        done = await run_command("connect", server.url, stdin=b"good\nb\xffd\nnever\n")
        assert server.peers[0].received == ["good"]
    assert (done.code, done.stderr) == (1, "! line 2 of the input is not UTF-8 at byte 2\n")


async def test_a_line_without_end() -> None:
    """A line has a limit."""
    async with MockServer(echo) as server:
        with trio.fail_after(SECONDS):
            done = await trio.run_process(
                ["sh", "-c", '"$@" < /dev/zero', "sh", *COMMAND, "connect", server.url],
                capture_stderr=True,
                check=False,
                env=environment(),
            )
    assert done.returncode == 1
    assert done.stderr.decode() == f"! a line of the input is longer than {MAX_LINE} bytes\n"


async def test_an_input_that_is_a_file(tmp_path: Path) -> None:
    """Epoll refuses files; a thread reads anything."""
    file = tmp_path / "lines"
    file.write_text("one\ntwo\n")
    async with MockServer(echo) as server:
        with trio.fail_after(SECONDS), file.open("rb") as stdin:
            done = await trio.run_process(
                [*COMMAND, "connect", server.url],
                stdin=stdin,
                capture_stdout=True,
                env=environment(),
            )
    assert done.stdout == b"one\ntwo\n"


async def test_an_input_that_does_not_block() -> None:
    """A pipe that somebody else has made non-blocking is read all the same."""
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


async def test_the_peer_goes_while_there_is_input() -> None:
    """It ends at once; nobody has to type anything."""
    async with MockServer() as server, started("connect", server.url) as running:
        peer = await server.accept()
        await running.type("one")
        await peer.expect("one")
        await peer.close(1000, "enough")
        done = await running.finish()
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
