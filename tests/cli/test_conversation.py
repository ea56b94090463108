"""The conversation: when it ends, what it prints, and its exit code, with a mock clock."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from tests.cli.fake_console import CTRL_C, FakeConsole, talk
from trioglock.cli.connect import MessageMode, open_messages
from trioglock.cli.conversation import Conversation, ConversationPlan
from trioglock.testing import MockPeer, MockServer, echo

Script = Callable[[MockPeer], Awaitable[None]]

needs_sighup = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGHUP")


async def conversation(console: FakeConsole, script: Script, **plan: object) -> tuple[int, float]:
    """Talk to a scripted peer; return the exit code and the duration in seconds."""
    ended = trio.Event()
    began = trio.current_time()

    async def peer(peer: MockPeer) -> None:
        try:
            await script(peer)
        finally:
            ended.set()

    async with MockServer(peer, memory=True) as server:
        with trio.fail_after(1000):
            code = await talk(console, server, **plan)
            await ended.wait()
        took = trio.current_time() - began
    return code, took


def about(seconds: float) -> object:
    """A duration with a small tolerance."""
    return pytest.approx(seconds, abs=0.4)


async def silent(peer: MockPeer) -> None:
    """Send nothing until the client closes with 1000."""
    await peer.expect_close(1000)


async def ticking(peer: MockPeer, seconds: float = 0.3) -> None:
    """Send messages without end."""
    async with trio.open_nursery() as nursery:

        async def tick() -> None:
            with suppress(ConnectionClosed):
                while True:
                    await peer.send("tick")
                    await trio.sleep(seconds)

        nursery.start_soon(tick)
        await peer.expect_close(1000)
        nursery.cancel_scope.cancel()


async def late(peer: MockPeer, seconds: float = 5) -> None:
    """Send a message after some time, and wait for the client to close."""
    await trio.sleep(seconds)
    await peer.send("late")
    await peer.expect_close(1000)


# The end of a pipe.


async def test_the_default_wait(autojump_clock: MockClock) -> None:
    """By default a script ends after a second without a message."""
    assert await conversation(FakeConsole(), silent) == (0, about(1))


async def test_the_longest_default_wait(autojump_clock: MockClock) -> None:
    """While messages arrive, a script waits ten seconds at most."""
    console = FakeConsole()
    code, took = await conversation(console, ticking)
    assert (code, took) == (0, about(10))
    assert len(console.messages) == pytest.approx(33, abs=2)


@pytest.mark.parametrize("seconds", [0, 3, 65])
async def test_wait(seconds: float, autojump_clock: MockClock) -> None:
    """--wait sets the time, whether messages arrive or not."""
    for script in (silent, ticking):
        done = await conversation(FakeConsole(), script, wait=seconds)
        assert done == (0, about(seconds))


async def test_wait_without_limit(autojump_clock: MockClock) -> None:
    """With --wait inf a script ends when the peer closes."""

    async def script(peer: MockPeer) -> None:
        await trio.sleep(505)
        await peer.send("bye")
        await peer.close(1001)

    console = FakeConsole()
    assert await conversation(console, script, wait=math.inf) == (0, about(505))
    assert (console.messages, console.events) == (["bye"], [])


# One message.


@pytest.mark.parametrize("has_prompt", [False, True])
async def test_once(has_prompt: bool, autojump_clock: MockClock) -> None:
    """The first message is printed and ends the conversation, however late it is."""
    console = FakeConsole("hi", has_prompt=has_prompt, left_open=has_prompt)
    done = await conversation(console, partial(late, seconds=205), once=True)
    assert done == (0, about(205))
    assert console.messages == ["late"]


async def test_once_without_an_answer(autojump_clock: MockClock) -> None:
    """--wait limits the time; then the exit code is 1."""
    console = FakeConsole("hi")
    assert await conversation(console, silent, once=True, wait=3) == (1, about(3))
    assert console.events == ["! no answer within 3 seconds"]


async def test_once_and_an_early_close(autojump_clock: MockClock) -> None:
    """If the peer closes before the first message, the exit code is 1."""

    async def script(peer: MockPeer) -> None:
        await peer.expect("hi")
        await peer.close(1000, "no")

    console = FakeConsole("hi")
    code, _ = await conversation(console, script, once=True)
    assert (code, console.events) == (1, ["! closed by the peer: 1000 no; no answer was received"])


# Interruptions.


async def test_ctrl_c_closes_with_1000(autojump_clock: MockClock) -> None:
    """The exit code is 130."""
    console = FakeConsole(CTRL_C, has_prompt=True)
    code, _ = await conversation(console, silent)
    assert (code, console.events[1:], console.is_reading) == (130, ["* closed: 1000"], False)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize(
    ("name", "code", "close"),
    [
        ("SIGINT", 130, 1000),
        ("SIGTERM", 143, 1001),
        pytest.param("SIGHUP", 129, 1001, marks=needs_sighup),
    ],
)
async def test_signals_close(
    name: str, code: int, close: int, once: bool, autojump_clock: MockClock
) -> None:
    """Each signal has the exit code that shells use, and nothing is printed."""

    async def script(peer: MockPeer) -> None:
        await peer.expect("hi")
        signal.raise_signal(getattr(signal, name))
        await peer.expect_close(close)

    console = FakeConsole("hi", left_open=True)
    got, _ = await conversation(console, script, once=once)
    assert (got, console.events) == (code, [])


@needs_sighup
@pytest.mark.parametrize("second", ["SIGINT", "SIGHUP"])
async def test_a_repeated_hangup(second: str, autojump_clock: MockClock) -> None:
    """SIGHUP or SIGINT after SIGHUP does not drop the connection: the close is confirmed."""

    async def script(peer: MockPeer) -> None:
        await peer.expect("hi")
        confirm, signalled = peer.stream.send_all, trio.Event()

        async def late(data: bytes) -> None:
            await signalled.wait()
            await confirm(data)

        peer.stream.send_all = late  # type: ignore[method-assign, assignment]
        for number in (signal.SIGHUP, getattr(signal, second)):
            signal.raise_signal(number)
            await trio.sleep(0.5)
        signalled.set()
        await peer.expect_close(1001)

    console = FakeConsole("hi", has_prompt=True, left_open=True)
    assert (await conversation(console, script))[0] == 129
    assert not any("dropped" in line or "not confirmed" in line for line in console.events)


async def test_the_second_ctrl_c_drops_the_connection(autojump_clock: MockClock) -> None:
    """It does not wait for a peer that does not confirm the close."""

    async def script(peer: MockPeer) -> None:
        await peer.expect("hi")
        # The peer no longer writes, so it cannot confirm.
        peer.stream.send_all = lambda *_: trio.sleep_forever()  # type: ignore[method-assign]
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            await trio.sleep(0.5)

    console = FakeConsole("hi", has_prompt=True, left_open=True)
    assert (await conversation(console, script))[0] == 130
    assert console.events[2:] == ["! aborted without a closing handshake"]


async def test_ctrl_c_while_it_connects(autojump_clock: MockClock) -> None:
    """There is nothing to close, and nothing is printed."""
    async with MockServer(memory=True) as server:

        async def dial() -> trio.abc.Stream:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
            raise AssertionError

        server.open_stream = dial  # type: ignore[method-assign]
        console = FakeConsole()
        assert await talk(console, server) == 130
        assert console.events == []


# The peer.


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "event"),
    [
        (1000, "enough", 0, "* closed by the peer: 1000 enough"),
        (1001, "", 0, "* closed by the peer: 1001"),
        (4001, "go\x1b away", 1, "! closed by the peer: 4001 go\\x1b away"),
        (1011, "", 1, "! closed by the peer: 1011"),
    ],
)
async def test_the_peer_closes(
    code: int, reason: str, exit_code: int, event: str, autojump_clock: MockClock
) -> None:
    """A prompt prints every end; a script prints errors only."""
    for has_prompt in (True, False):
        console = FakeConsole(has_prompt=has_prompt, left_open=True)

        async def script(peer: MockPeer) -> None:
            await peer.close(code, reason)

        assert (await conversation(console, script))[0] == exit_code
        assert console.events[int(has_prompt) :] == ([event] if has_prompt or exit_code else [])


async def test_a_lost_connection(autojump_clock: MockClock) -> None:
    """Without a Close frame the exit code is 1."""

    async def script(peer: MockPeer) -> None:
        await peer.abort()

    console = FakeConsole(left_open=True)
    assert (await conversation(console, script))[0] == 1
    assert console.events[0].startswith("! connection lost: ")


async def test_dropped_messages(autojump_clock: MockClock) -> None:
    """Messages that exceed the queue during a close are counted; the exit code is 1."""

    async def script(peer: MockPeer) -> None:
        await peer.expect("hi")
        held: list[bytes] = []

        async def hold(data: bytes) -> None:
            held.append(data)

        async def release(data: bytes) -> None:
            await send_all(b"".join([*held, data]))

        send_all = peer.stream.send_all
        peer.stream.send_all = hold  # type: ignore[method-assign, assignment]
        await peer.send(*["x"] * 400)
        peer.stream.send_all = release  # type: ignore[method-assign, assignment]
        await peer.expect_close(1000)

    console = FakeConsole("hi")
    code, _ = await conversation(console, script, wait=1)
    assert (code, len(console.messages)) == (1, 256)
    assert console.events == ["! closed: 1000; 144 messages were dropped"]


async def test_a_closed_output(autojump_clock: MockClock) -> None:
    """Nothing more is printed; the connection is closed with 1000, and the exit code is 0."""
    console = FakeConsole(left_open=True, has_prompt=True)
    console.reader_has_gone = True
    code, _ = await conversation(console, ticking)
    assert (code, console.messages, console.events[1:]) == (0, [], [])


# The prompt.


async def test_the_end_of_the_input_at_a_prompt(autojump_clock: MockClock) -> None:
    """Ctrl-D closes immediately."""
    console = FakeConsole("hi", has_prompt=True)
    assert await conversation(console, silent) == (0, about(0))
    assert console.events == ["* connected to ws://memory.test/", "> hi", "* closed: 1000"]


async def commands(*lines: str) -> list[str]:
    """Return the events of a prompt for these lines, and the messages that were sent."""
    console = FakeConsole(*lines, has_prompt=True)
    async with MockServer(echo, memory=True) as server:
        await talk(console, server)
        sent = server.peers[0].received
    return [*console.events[1:-1], *(f"sent {message!r}" for message in sent)]


@pytest.mark.parametrize(
    ("line", "events"),
    [
        ("/nonsense", ["! there is no command /nonsense; see /help; //nonsense sends"]),
        ("/", ["! there is no command /"]),
        ("//text", ["> /text", "sent '/text'"]),
        ("/ping now", ["! /ping takes no arguments, but was given 'now'"]),
        ("/binary", ["! /binary takes pairs of hexadecimal digits"]),
        ("/binary 0", ["! /binary takes pairs of hexadecimal digits"]),
        ("/binary 00 fF", ["> binary:00ff", "sent b'\\x00\\xff'"]),
        ("/close abc", ["! /close: 'abc' is not a close code"]),
        ("/close 1005", ["~ closing with 1005"]),
        ("/close 1006", ["! /close: close code 1006 cannot be sent"]),
        ("/close 3000 " + "x" * 124, ["! /close: a close reason must be at most 123 bytes"]),
        ("/trace", ["! /trace takes on or off, not ''"]),
        ("/trace maybe", ["! /trace takes on or off, not 'maybe'"]),
        ("/trace off", ["~ trace off"]),
        ("/help", ["<rich.table.Table"]),
        ("/status", ["<rich.table.Table"]),
    ],
)
async def test_commands(line: str, events: list[str], autojump_clock: MockClock) -> None:
    """Each command prints its result; an invalid one is an error and sends nothing."""
    got = await commands(line)
    assert len(got) == len(events), got
    for event, start in zip(got, events, strict=True):
        assert event.startswith(start)


@pytest.mark.parametrize("line", ["/quit", "/exit"])
async def test_quit(line: str, autojump_clock: MockClock) -> None:
    """It closes with 1000, like Ctrl-D."""
    console = FakeConsole(line, "never", has_prompt=True, left_open=True)
    assert await conversation(console, silent) == (0, about(0))
    assert console.events == ["* connected to ws://memory.test/", "* closed: 1000"]


async def test_before_the_connection(autojump_clock: MockClock) -> None:
    """Messages are queued and sent in order; commands work as far as they can."""
    lines = ["one", "/ping", "//two", "/nonsense", "/status", "/trace on"]
    console = FakeConsole(*lines, has_prompt=True, left_open=True)
    async with MockServer(echo, memory=True) as server:
        opened = trio.Event()

        async def dial() -> trio.abc.Stream:
            await opened.wait()
            return await MockServer.open_stream(server)

        server.open_stream = dial  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(talk, console, server, reconnect=True))
            await trio.sleep(1)
            assert console.events[0] == "> one (queued until connected)"
            assert console.events[1] == "! no pong: not connected yet"
            assert console.events[2] == "> /two (queued until connected)"
            assert console.events[3].startswith(
                "! there is no command /nonsense before the connection is open"
            )
            assert console.events[4].startswith("<rich.table.Table")
            assert console.events[5].startswith("! /trace: not connected yet")
            opened.set()
            await trio.sleep(1)
            assert console.events[6:] == ["* connected to ws://memory.test/", "> one", "> /two"]
            console.end_input()
        assert server.peers[0].received == ["one", "/two"]


@pytest.mark.parametrize("end", [None, "/quit", "/close"])
async def test_leaving_while_queued_lines_are_sent(
    end: str | None, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lines from before the connection are sent first."""

    async def send_slowly(mode: MessageMode, line: str) -> None:
        await trio.sleep(1)
        await mode.connection.send(line)

    monkeypatch.setattr(MessageMode, "send", send_slowly)
    console = FakeConsole("one", "two", has_prompt=True, left_open=True)
    async with MockServer(echo, memory=True) as server:

        async def connect() -> trio.abc.Stream:
            await trio.sleep(1)
            return await MockServer.open_stream(server)

        async def leave() -> None:
            await trio.sleep(1.5)
            assert console.events[2:] == ["* connected to ws://memory.test/"]
            console.type(end) if end else console.end_input()

        server.open_stream = connect  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            assert await talk(console, server, reconnect=True) == 0
        assert server.peers[0].received == ["one", "two"]


@pytest.mark.parametrize(("line", "code"), [(None, 3), ("/quit", 3), (CTRL_C, 130)])
async def test_leaving_before_the_connection(
    line: str | None, code: int, autojump_clock: MockClock
) -> None:
    """It ends immediately and prints the number of unsent messages."""
    console = FakeConsole("one", *([line] if line else []), has_prompt=True)
    async with MockServer(memory=True) as server:
        server.open_stream = trio.sleep_forever  # type: ignore[method-assign]
        assert await talk(console, server, reconnect=True) == code
    assert console.events[0] == "> one (queued until connected)"
    assert not console.is_reading
    printed = [] if code == 130 else ["* not connected; 1 message was not sent"]
    assert console.events[1:] == printed


@pytest.mark.parametrize(("line", "code"), [(None, 1), ("/quit", 1), (CTRL_C, 130)])
async def test_fault_35_leaving_while_reconnecting(
    line: str | None, code: int, autojump_clock: MockClock
) -> None:
    """There is no peer that could answer a close."""
    console = FakeConsole(has_prompt=True, left_open=True)
    async with MockServer(memory=True) as server:
        gone = False

        async def dial() -> trio.abc.Stream:
            if gone:
                await trio.sleep_forever()
            return await server.open_stream()

        async def go_away() -> None:
            nonlocal gone
            peer = await server.accept()
            gone = True
            await peer.abort()
            await trio.sleep(1)
            console.type("later")
            await trio.sleep(1)
            console.type(line) if line else console.end_input()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_away)
            opening = open_messages(server.url, console, json=False, stream=dial, reconnect=True)
            plan = ConversationPlan(url=server.url, reconnect=True)
            assert await Conversation(console, plan).run(opening) == code
    assert console.events == [
        "* connected to ws://memory.test/",
        "> later (queued until connected)",
        "! not connected; 1 message was not sent",
    ]


async def test_a_peer_that_does_not_answer_a_close(autojump_clock: MockClock) -> None:
    """A hint appears after a second; a pending ping is reported."""

    async def script(peer: MockPeer) -> None:
        await peer.expect("hi")
        peer.stream.send_all = lambda *_: trio.sleep_forever()  # type: ignore[method-assign]
        console.type("/ping")
        await trio.sleep(1)
        console.end_input()
        await trio.sleep(3)

    console = FakeConsole("hi", has_prompt=True, left_open=True)
    assert (await conversation(console, script))[0] == 1
    assert "* closing; press Ctrl-C again to drop the connection" in console.events
    assert "* no pong: the connection was closed first" in console.events


async def test_ping(autojump_clock: MockClock) -> None:
    """/ping prints the round-trip time; the prompt stays responsive."""
    console = FakeConsole("/ping", "hi", has_prompt=True, left_open=True)
    async with MockServer(echo, memory=True) as server, trio.open_nursery() as nursery:
        nursery.start_soon(talk, console, server)
        while not any(line.startswith("~ pong after ") for line in console.events):
            await trio.sleep(0.1)
        assert "> hi" in console.events
        console.end_input()


async def test_close(autojump_clock: MockClock) -> None:
    """/close sends a code and a reason; once confirmed, the exit code is 0."""

    async def script(peer: MockPeer) -> None:
        await peer.expect_close(4321, "so long")

    console = FakeConsole("/close 4321 so long", "never", has_prompt=True)
    assert (await conversation(console, script))[0] == 0
    assert console.events[1:] == ["~ closing with 4321 so long", "* closed: 4321 so long"]
