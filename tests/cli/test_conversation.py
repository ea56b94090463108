"""The conversation: when it ends, what it says, and its exit code; in no time."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from tests.cli.desk import CTRL_C, Desk, talk
from trioglock.testing import MockPeer, MockServer, echo

Script = Callable[[MockPeer], Awaitable[None]]


async def conversation(desk: Desk, script: Script, **plan: object) -> tuple[int, float]:
    """Talk to a scripted peer; the exit code, and how many seconds it took."""
    ended = trio.Event()
    began = trio.current_time()

    async def peer(peer: MockPeer) -> None:
        try:
            await script(peer)
        finally:
            ended.set()

    async with MockServer(peer, memory=True) as server:
        with trio.fail_after(1000):
            code = await talk(desk, server, **plan)
            await ended.wait()
        took = trio.current_time() - began
    return code, took


def about(seconds: float) -> object:
    """A time, give or take a few turns of the loop."""
    return pytest.approx(seconds, abs=0.4)


async def silent(peer: MockPeer) -> None:
    """Say nothing until the client closes with 1000."""
    await peer.expect_close(1000)


async def ticking(peer: MockPeer, seconds: float = 0.3) -> None:
    """Never be quiet."""
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
    """Send something after a while, and wait for the client to close."""
    await trio.sleep(seconds)
    await peer.send("late")
    await peer.expect_close(1000)


# The end of a pipe.


async def test_it_waits_for_quiet(autojump_clock: MockClock) -> None:
    """For a second without a message, if nothing else is said."""
    assert await conversation(Desk(), silent) == (0, about(1))


async def test_it_waits_while_messages_come(autojump_clock: MockClock) -> None:
    """At most ten seconds."""
    desk = Desk()
    code, took = await conversation(desk, ticking)
    assert (code, took) == (0, about(10))
    assert len(desk.messages) == pytest.approx(33, abs=2)


@pytest.mark.parametrize("seconds", [0, 3, 65])
async def test_it_waits_as_long_as_it_is_told(seconds: float, autojump_clock: MockClock) -> None:
    """Messages or not."""
    for script in (silent, ticking):
        assert await conversation(Desk(), script, wait=seconds) == (
            0,
            about(seconds),
        )


async def test_it_waits_for_ever(autojump_clock: MockClock) -> None:
    """Until the peer closes."""

    async def leaves(peer: MockPeer) -> None:
        await trio.sleep(505)
        await peer.send("bye")
        await peer.close(1001)

    desk = Desk()
    assert await conversation(desk, leaves, wait=math.inf) == (0, about(505))
    assert (desk.messages, desk.told) == (["bye"], [])


# One message.


@pytest.mark.parametrize("has_prompt", [False, True])
async def test_one_message_is_enough(has_prompt: bool, autojump_clock: MockClock) -> None:
    """However long it takes, the first one is printed and ends it."""
    desk = Desk("hi", has_prompt=has_prompt, left_open=has_prompt)
    assert await conversation(desk, partial(late, seconds=205), once=True) == (
        0,
        about(205),
    )
    assert desk.messages == ["late"]


async def test_no_message_in_time(autojump_clock: MockClock) -> None:
    """With --wait the patience has an end, and the exit code is 1."""
    desk = Desk("hi")
    assert await conversation(desk, silent, once=True, wait=3) == (1, about(3))
    assert desk.told == ["! no answer within 3 seconds"]


async def test_the_peer_closes_before_the_one_message(autojump_clock: MockClock) -> None:
    """What was wanted has not come: the exit code is 1."""

    async def leaves(peer: MockPeer) -> None:
        await peer.expect("hi")
        await peer.close(1000, "no")

    desk = Desk("hi")
    code, _ = await conversation(desk, leaves, once=True)
    assert (code, desk.told) == (1, ["! closed by the peer: 1000 no; no answer came"])


# Interruptions.


async def test_ctrl_c_closes_with_1000(autojump_clock: MockClock) -> None:
    """At the prompt; the exit code is 130."""
    desk = Desk(CTRL_C, has_prompt=True)
    code, _ = await conversation(desk, silent)
    assert (code, desk.told[1:], desk.is_reading) == (130, ["* closed: 1000"], False)


@pytest.mark.parametrize(
    ("name", "code", "close"),
    [("SIGINT", 130, 1000), ("SIGTERM", 143, 1001), ("SIGHUP", 129, 1001)],
)
async def test_signals_close(name: str, code: int, close: int, autojump_clock: MockClock) -> None:
    """Each with its exit code, as shells have them."""

    async def kill(peer: MockPeer) -> None:
        await peer.expect("hi")
        os.kill(os.getpid(), signal.Signals[name])
        await peer.expect_close(close)

    got, _ = await conversation(Desk("hi", left_open=True), kill)
    assert got == code


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGHUP])
async def test_a_terminal_that_goes_away_may_tell_so_twice(
    second: signal.Signals, autojump_clock: MockClock
) -> None:
    """By a signal and by Ctrl-C or another one: nobody is impatient, and the close is confirmed."""

    async def kill(peer: MockPeer) -> None:
        await peer.expect("hi")
        confirm, told = peer.stream.send_all, trio.Event()

        async def late(data: bytes) -> None:
            await told.wait()
            await confirm(data)

        peer.stream.send_all = late  # type: ignore[method-assign, assignment]
        for number in (signal.SIGHUP, second):
            os.kill(os.getpid(), number)
            await trio.sleep(0.5)
        told.set()
        await peer.expect_close(1001)

    desk = Desk("hi", has_prompt=True, left_open=True)
    assert (await conversation(desk, kill))[0] == 129
    assert not any("dropped" in line or "not confirmed" in line for line in desk.told)


async def test_the_second_ctrl_c_drops_the_connection(autojump_clock: MockClock) -> None:
    """A peer that does not confirm the close holds nobody up."""

    async def kill(peer: MockPeer) -> None:
        await peer.expect("hi")
        # This peer writes no more, so it confirms nothing.
        peer.stream.send_all = lambda *_: trio.sleep_forever()  # type: ignore[method-assign]
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep(0.5)

    desk = Desk("hi", has_prompt=True, left_open=True)
    assert (await conversation(desk, kill))[0] == 130
    assert desk.told[2:] == ["! aborted without a closing handshake"]


async def test_ctrl_c_while_it_connects(autojump_clock: MockClock) -> None:
    """There is nothing to close: it ends at once."""
    async with MockServer(memory=True) as server:

        async def dial() -> trio.abc.Stream:
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep_forever()
            raise AssertionError

        server.open_stream = dial  # type: ignore[method-assign]
        desk = Desk()
        assert await talk(desk, server) == 130
        assert desk.told == []


# The peer.


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "told"),
    [
        (1000, "enough", 0, "* closed by the peer: 1000 enough"),
        (1001, "", 0, "* closed by the peer: 1001"),
        (4001, "go\x1b away", 1, "! closed by the peer: 4001 go\\x1b away"),
        (1011, "", 1, "! closed by the peer: 1011"),
    ],
)
async def test_the_peer_closes(
    code: int, reason: str, exit_code: int, told: str, autojump_clock: MockClock
) -> None:
    """At the prompt the end is told at once; in a pipe, unless it is a good one."""
    for has_prompt in (True, False):
        desk = Desk(has_prompt=has_prompt, left_open=True)

        async def leaves(peer: MockPeer) -> None:
            await peer.close(code, reason)

        assert (await conversation(desk, leaves))[0] == exit_code
        assert desk.told[int(has_prompt) :] == ([told] if has_prompt or exit_code else [])


async def test_the_peer_goes_away(autojump_clock: MockClock) -> None:
    """Without a Close frame: lost, and 1."""

    async def goes(peer: MockPeer) -> None:
        await peer.abort()

    desk = Desk(left_open=True)
    assert (await conversation(desk, goes))[0] == 1
    assert desk.told[0].startswith("! connection lost: ")


async def test_more_than_can_wait_while_it_closes(autojump_clock: MockClock) -> None:
    """What is dropped is told, and the exit code is 1."""

    async def floods(peer: MockPeer) -> None:
        await peer.expect("hi")
        held: list[bytes] = []

        async def hold(data: bytes) -> None:
            held.append(data)

        async def release(data: bytes) -> None:
            await send_all(b"".join([*held, data]))

        send_all = peer.stream.send_all
        peer.stream.send_all = hold  # type: ignore[method-assign, assignment]
        await peer.send(*["x"] * 1200)
        peer.stream.send_all = release  # type: ignore[method-assign, assignment]
        await peer.expect_close(1000)

    desk = Desk("hi")
    code, _ = await conversation(desk, floods, wait=1)
    assert (code, len(desk.messages)) == (1, 1000)
    assert desk.told == ["! closed: 1000; 200 messages were dropped"]


async def test_a_reader_that_goes_away(autojump_clock: MockClock) -> None:
    """Nothing more is printed; closed with 1000, and 0."""
    desk = Desk(left_open=True, has_prompt=True)
    desk.goes_away = True
    code, _ = await conversation(desk, ticking)
    assert (code, desk.messages, desk.told[1:]) == (0, [], [])


# The prompt.


async def test_the_end_of_the_input_at_a_prompt(autojump_clock: MockClock) -> None:
    """Ctrl-D closes at once: whoever types has seen what he wanted."""
    desk = Desk("hi", has_prompt=True)
    assert await conversation(desk, silent) == (0, about(0))
    assert desk.told == ["* connected to ws://memory.test/", "> hi", "* closed: 1000"]


async def commands(*lines: str) -> list[str]:
    """What is told for these lines by a prompt, after "connected", and what was sent."""
    desk = Desk(*lines, has_prompt=True)
    async with MockServer(echo, memory=True) as server:
        await talk(desk, server)
        sent = server.peers[0].received
    return [*desk.told[1:-1], *(f"sent {message!r}" for message in sent)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/nonsense", ["! there is no command /nonsense; /help lists them, //nonsense sends"]),
        ("/", ["! there is no command /"]),
        ("//text", ["> /text", "sent '/text'"]),
        ("/ping now", ["! /ping takes nothing more, not 'now'"]),
        ("/binary", ["! /binary takes at least one pair"]),
        ("/binary 0", ["! /binary takes pairs of hexadecimal digits"]),
        ("/binary 00 fF", ["> binary:00ff", "sent b'\\x00\\xff'"]),
        ("/close abc", ["! /close: a close code is a number, not 'abc'"]),
        ("/close 1005", ["~ closing with 1005"]),
        ("/close 1006", ["! /close: close code 1006 cannot be sent"]),
        ("/close 3000 " + "x" * 124, ["! /close: a close reason must be at most 123 bytes"]),
        ("/trace", ["! /trace takes on or off, not ''"]),
        ("/trace maybe", ["! /trace takes on or off, not 'maybe'"]),
        ("/trace off", ["~ the trace is off"]),
        ("/help", ["<rich.table.Table"]),
        ("/status", ["<rich.table.Table"]),
    ],
)
async def test_commands(line: str, told: list[str], autojump_clock: MockClock) -> None:
    """Bad ones are told, and nothing is sent."""
    got = await commands(line)
    assert len(got) == len(told), got
    for line_got, begins in zip(got, told, strict=True):
        assert line_got.startswith(begins)


@pytest.mark.parametrize("line", ["/quit", "/exit"])
async def test_quit(line: str, autojump_clock: MockClock) -> None:
    """As Ctrl-D."""
    desk = Desk(line, "never", has_prompt=True, left_open=True)
    assert await conversation(desk, silent) == (0, about(0))
    assert desk.told == ["* connected to ws://memory.test/", "* closed: 1000"]


async def test_before_there_is_a_connection(autojump_clock: MockClock) -> None:
    """Texts wait and are sent in their order; commands tell how things stand."""
    lines = ["one", "/ping", "//two", "/nonsense", "/status", "/trace on"]
    desk = Desk(*lines, has_prompt=True, left_open=True)
    async with MockServer(echo, memory=True) as server:
        opened = trio.Event()

        async def dial() -> trio.abc.Stream:
            await opened.wait()
            return await MockServer.open_stream(server)

        server.open_stream = dial  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(talk, desk, server, awaited=server.url))
            await trio.sleep(1)
            assert desk.told[0] == "> one (waits for a connection)"
            assert desk.told[1] == "! no pong: there is no connection yet"
            assert desk.told[2] == "> /two (waits for a connection)"
            assert desk.told[3].startswith("! there is no command /nonsense before")
            assert desk.told[4].startswith("<rich.table.Table")
            assert desk.told[5].startswith("! /trace: there is no connection yet")
            opened.set()
            await trio.sleep(1)
            assert desk.told[6:] == ["* connected to ws://memory.test/", "> one", "> /two"]
            desk.end_input()
        assert server.peers[0].received == ["one", "/two"]


@pytest.mark.parametrize(("line", "code"), [(None, 3), ("/quit", 3), (CTRL_C, 130)])
async def test_nobody_wants_to_wait(line: str | None, code: int, autojump_clock: MockClock) -> None:
    """Before there is a connection: it ends at once, and what was not sent is told."""
    desk = Desk("one", *([line] if line else []), has_prompt=True)
    async with MockServer(memory=True) as server:
        server.open_stream = trio.sleep_forever  # type: ignore[method-assign]
        assert await talk(desk, server, awaited=server.url) == code
    assert desk.told[0] == "> one (waits for a connection)"
    assert not desk.is_reading
    told = [] if code == 130 else ["* no connection came about; not sent: 1 of your messages"]
    assert desk.told[1:] == told


async def test_a_peer_that_does_not_answer_a_close(autojump_clock: MockClock) -> None:
    """After a second a person is told what else there is to do; a ping that was lost is told."""

    async def deaf(peer: MockPeer) -> None:
        await peer.expect("hi")
        peer.stream.send_all = lambda *_: trio.sleep_forever()  # type: ignore[method-assign]
        desk.type("/ping")
        await trio.sleep(1)
        desk.end_input()
        await trio.sleep(3)

    desk = Desk("hi", has_prompt=True, left_open=True)
    assert (await conversation(desk, deaf))[0] == 1
    assert "* closing; Ctrl-C again drops the connection" in desk.told
    assert "* no pong: the connection was closed before it came" in desk.told


async def test_ping(autojump_clock: MockClock) -> None:
    """Tells the round trip; the prompt goes on meanwhile."""
    desk = Desk("/ping", "hi", has_prompt=True, left_open=True)
    async with MockServer(echo, memory=True) as server, trio.open_nursery() as nursery:
        nursery.start_soon(talk, desk, server)
        while not any(line.startswith("~ pong after ") for line in desk.told):
            await trio.sleep(0.1)
        assert "> hi" in desk.told
        desk.end_input()


async def test_close(autojump_clock: MockClock) -> None:
    """With a code and a reason of one's own; confirmed, it is a good end."""

    async def expects(peer: MockPeer) -> None:
        await peer.expect_close(4321, "so long")

    desk = Desk("/close 4321 so long", "never", has_prompt=True)
    assert (await conversation(desk, expects))[0] == 0
    assert desk.told[1:] == ["~ closing with 4321 so long", "* closed: 4321 so long"]
