"""Presence: the rules of the JavaScript client, and presence in a channel."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.protocols.phoenix.helpers import connected
from trioglock import UsageError
from trioglock.protocols.phoenix import Presence
from trioglock.testing import MockPhoenixChannel


def entry(*refs: str, **more: Any) -> dict[str, Any]:
    return {"metas": [{"phx_ref": ref} for ref in refs], **more}


def test_presence_calls_back_for_joins_and_leaves() -> None:
    """A key joins with its first connection and leaves with its last."""
    calls: list[Any] = []
    presence = Presence(
        on_join=lambda key, known, come: calls.append(("+", key, known, come)),
        on_leave=lambda key, left, gone: calls.append(("-", key, left, gone)),
        on_sync=lambda: calls.append("sync"),
    )
    assert presence.receive("presence_state", {"al": entry("1")}, "5")
    assert presence.receive("presence_diff", {"joins": {"al": entry("2")}, "leaves": {}}, "5")
    assert presence.receive("presence_diff", {"joins": {}, "leaves": {"al": entry("1")}}, "5")
    assert presence.receive("presence_diff", {"leaves": {"al": entry("2"), "zz": entry("9")}}, "5")
    assert not presence.receive("other", {}, "5")
    assert calls == [
        ("+", "al", None, entry("1")),
        "sync",
        ("+", "al", entry("1"), entry("2")),
        "sync",
        ("-", "al", entry("2"), entry("1")),
        "sync",
        ("-", "al", entry(), entry("2")),
        "sync",
    ]
    assert presence.list() == []


def test_fault_25_callbacks_and_callers_may_change_what_they_get() -> None:
    """Entries are copied deeply, so the next message finds the presence unchanged."""

    def spoil(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                spoil(item)
            value.clear()
        elif isinstance(value, list):
            for item in value:
                spoil(item)
            value.clear()

    def spoil_both(_key: str, known: Any, changed: Any) -> None:
        spoil(known)
        spoil(changed)

    presence = Presence(on_join=spoil_both, on_leave=spoil_both)
    more = {"user": {"tags": ["a"]}}
    presence.receive("presence_state", {"al": entry("1", **more), "bo": entry("2")}, "5")
    for _ in range(2):
        spoil(presence.state)
        spoil(presence.list())
        presence.list(lambda _key, shown: spoil(shown))
        presence.receive("presence_diff", {"joins": {"al": entry("3", **more)}}, "5")
        assert presence.state == {"al": entry("1", "3", **more), "bo": entry("2")}
        presence.receive("presence_diff", {"leaves": {"al": entry("3")}}, "5")
        assert presence.state == {"al": entry("1", **more), "bo": entry("2")}


def test_presence_after_a_rejoin_reports_only_changes() -> None:
    """Diffs of the new join wait for its state; metas are compared by phx_ref."""
    calls: list[Any] = []
    presence = Presence(
        on_join=lambda key, known, come: calls.append(("+", key, come)),
        on_leave=lambda key, left, gone: calls.append(("-", key, gone)),
    )
    presence.receive("presence_state", {"al": entry("1", "2"), "bo": entry("3")}, "5")
    calls.clear()
    presence.receive("presence_diff", {"joins": {"cy": entry("6")}, "leaves": {}}, "7")
    assert "cy" not in presence
    presence.receive("presence_state", {"al": entry("2", "4", name="Al")}, "7")
    assert calls == [
        ("+", "al", entry("4", name="Al")),
        ("-", "bo", entry("3")),
        ("-", "al", entry("1")),
        ("+", "cy", entry("6")),
    ]
    assert presence.list(lambda key, found: (key, len(found["metas"]))) == [("al", 2), ("cy", 1)]
    assert len(presence) == 2


@pytest.mark.parametrize(
    "payload",
    [None, [], {"al": None}, {"al": {}}, {"al": {"metas": [{}]}}, {"al": {"metas": [1]}}],
)
async def test_malformed_presence_is_counted(autojump_clock: MockClock, payload: Any) -> None:
    """It changes nothing."""
    presence = Presence()
    async with connected() as (server, socket):
        await socket.join("room:1", presence=presence)
        await server.broadcast("room:1", "presence_state", {"bo": entry("1")})
        await server.broadcast("room:1", "presence_state", payload)
        await server.broadcast("room:1", "presence_diff", {"joins": payload})
        await server.broadcast("room:1", "presence_diff", [])
        await trio.testing.wait_all_tasks_blocked()
        assert presence.state == {"bo": entry("1")}
        assert socket.statistics().invalid == 3


async def test_a_value_error_of_a_presence_callback_is_raised(autojump_clock: MockClock) -> None:
    """It is not mistaken for a malformed message."""

    def fails(*args: Any) -> None:
        raise ValueError("mine")

    class Room(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.push("presence_state", {"al": entry("1")})

    with pytest.raises(ValueError, match="mine"):
        async with connected({"room:*": Room}) as (_server, socket):
            await socket.join("room:1", presence=Presence(on_join=fails))
            await trio.sleep(1)
            pytest.fail("the error is lost")  # pragma: no cover


async def test_a_presence_callback_must_not_call_the_socket(autojump_clock: MockClock) -> None:
    calls: list[Any] = []
    presence = Presence(on_sync=lambda: calls[0].send(None))

    class Lobby(MockPhoenixChannel):
        async def on_joined(self) -> None:
            await self.track("al")

    with pytest.raises(UsageError):
        async with connected({"room:*": Lobby}) as (_server, socket):
            channel = await socket.join_soon("room:1", presence=presence)
            calls.append(channel.push("x"))
            await channel.wait_joined()
            await trio.sleep(1)
