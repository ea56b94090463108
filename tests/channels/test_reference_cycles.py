"""A channel that has ended, and its connection, leave no reference cycle."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.channels.helpers import ChannelsSite, serving_channels
from tests.connection.test_reference_cycles import interpreter_keeps_callers, no_cycles
from trioglock.channels import Answer, Broadcast, Channel, History, Stop


class Plain(Channel[int]):
    """Does what the event says."""

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        self.cast("hello")
        return {}, 0

    def handle_in(self, event: str, payload: Any, state: int) -> Any:
        match event:
            case "fail":
                raise ValueError
            case "stop":
                return Stop(), state
            case "broadcast":
                return Broadcast("x", {}, to_self=False), state
        return Answer("ok", {"ref": self.ref}), state

    def handle_cast(self, message: Any, state: int) -> Any:
        return None, state


class Later(Plain):
    """The same with async hooks."""

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        return super().join(topic, payload, user)

    async def handle_in(self, event: str, payload: Any, state: int) -> Any:
        await trio.sleep(1000 if event == "wait" else 0)
        return super().handle_in(event, payload, state)

    async def terminate(self, reason: Any, state: int) -> None:
        await trio.sleep(0)


class Remembering(Later):
    """The same with a history."""

    history = History()


async def talk(site: ChannelsSite, ending: str) -> None:
    async with site.dial() as raw:
        await raw.join(payload={"after": "1000000000000000-0"})
        await raw.join("room:2", "2")
        await raw.send("1", "3", "room:1", "echo", {})
        await raw.receive()
        await raw.send("1", "4", "room:1", "broadcast", {})
        match ending:
            case "leave":
                await raw.send("1", "5", "room:1", "phx_leave", {})
                await raw.receive()
            case "join":
                await raw.send("5", "5", "room:1", "phx_join", {})
                await raw.receive()
            case "fail" | "stop":
                await raw.send("1", "5", "room:1", ending, {})
                await raw.receive()
            case "wait":
                await raw.send("1", "5", "room:1", ending, {})
            case "malformed":
                await raw.connection.send("{")
                await raw.connection.wait_closed()
            case "abort":
                raw.connection.abort()


@pytest.mark.parametrize(
    "ending",
    [
        "leave",
        "join",
        pytest.param("fail", marks=interpreter_keeps_callers),
        "stop",
        "wait",
        "malformed",
        "abort",
    ],
)
@pytest.mark.parametrize("kind", [Plain, Later, Remembering])
async def test_nothing_is_left_to_the_garbage_collector(
    kind: type[Channel[Any]], ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_channels(kind, id=lambda user: "user") as site:
        await talk(site, ending)  # creates what is shared
        caplog.clear()
        with no_cycles():
            await talk(site, ending)
            caplog.clear()  # the log keeps exceptions
            while site.server.connections:
                await trio.sleep(0.01)
            await wait_all_tasks_blocked()
