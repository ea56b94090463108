"""Credentials that expire, and the tokens with which clients renew them."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.channels.helpers import URL, ChannelsSite, RawPhoenix, serving_channels
from tests.protocols.clock import MOCK_CLOCK
from trioglock import Rate
from trioglock.channels import Answer, Channel, Channels, ConnectRequest, Credentials, credentials
from trioglock.errors import (
    ConnectionClosed,
    ConnectionClosedError,
    HandshakeRefused,
    InvalidOption,
)
from trioglock.pubsub import Hub

START = 1_700_000_000.0


class Clock:
    """The clock of the system: it runs with that of the test, and can be set."""

    def __init__(self) -> None:
        self.offset = START

    def __call__(self) -> float:
        return self.offset + trio.current_time()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(credentials, "wall_clock", found)
    return found


class Room(Channel[str]):
    """Answers with the user that its state and its join were given."""

    ends: list[Any]

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        return {"user": user}, user

    def handle_in(self, event: str, payload: Any, state: str) -> Any:
        return Answer("ok", {"event": event, "user": state}), state

    def terminate(self, reason: Any, state: str) -> None:
        self.ends.append(reason)


@pytest.fixture(autouse=True)
def ends() -> list[Any]:
    Room.ends = []
    return Room.ends


def issue(request: ConnectRequest) -> Any:
    """A token is a name, or a name and the time for which it is valid."""
    return read_token(request.params.get("token", "al:100"))


def read_token(token: str) -> Any:
    name, _, seconds = token.partition(":")
    if name == "no":
        return None
    return Credentials(name, START + float(seconds)) if seconds else name


def refresh(token: str, user: Any) -> Any:
    if token == "boom":
        raise RuntimeError("the database is down")
    return read_token(token)


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[tuple[ChannelsSite, RawPhoenix]]:
    options = {"connect": issue, "refresh": refresh} | options
    async with serving_channels(Room, **options) as site, site.dial() as raw:
        await raw.join()
        yield site, raw


async def push(raw: RawPhoenix, token: Any, ref: str = "t") -> Any:
    """Push a token; return the status and the response."""
    payload = {"access_token": token}
    join_ref, reply_ref, topic, event, reply = await raw.ask(
        "1", ref, "room:1", "access_token", payload
    )
    assert [join_ref, reply_ref, topic, event] == ["1", ref, "room:1", "phx_reply"]
    return reply["status"], reply["response"].get("reason")


async def closed_at(raw: RawPhoenix) -> float:
    with pytest.raises(ConnectionClosedError):
        await raw.receive()
    connection = raw.connection
    assert (connection.close_code, connection.close_reason) == (
        1008,
        "the credentials have expired",
    )
    return round(trio.current_time())


# Expiry.


@MOCK_CLOCK
async def test_the_connection_is_closed_with_1008_when_the_credentials_expire(
    ends: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trioglock.channels")
    async with client() as (_, raw):
        assert await closed_at(raw) == 100
    assert len(ends) == 1
    assert "credentials have expired" in caplog.text


@MOCK_CLOCK
@pytest.mark.parametrize("token", ["al:0", "al:-5", "no:10"])
async def test_a_client_with_expired_credentials_or_no_user_is_refused_with_403(token: str) -> None:
    def connect(request: ConnectRequest) -> Any:
        name, _, seconds = token.partition(":")
        return Credentials(None if name == "no" else name, START + float(seconds))

    async with serving_channels(Room, connect=connect) as site:
        with pytest.raises(HandshakeRefused, match="403"):
            async with site.dial(URL, reconnect=False):
                pass


@MOCK_CLOCK
@pytest.mark.parametrize("expires_at", [START + 10**9, 1e300, float("inf"), 2**70])
async def test_credentials_may_expire_in_the_far_future(expires_at: float) -> None:
    async with client(connect=lambda _: Credentials("al", expires_at)) as (_, raw):
        await trio.sleep(3000)
        await raw.alive()


@MOCK_CLOCK
async def test_a_clock_that_is_put_forward_ends_the_connection_within_half_a_minute(
    clock: Clock,
) -> None:
    async with client(connect=lambda _: Credentials("al", START + 10**6)) as (_, raw):
        await trio.sleep(1000)
        clock.offset += 10**6
        assert 1000 <= await closed_at(raw) <= 1031


@MOCK_CLOCK
async def test_a_clock_that_is_put_back_extends_the_connection(clock: Clock) -> None:
    async with client() as (_, raw):
        await trio.sleep(50)
        clock.offset -= 1000
        assert await closed_at(raw) == 1100


@MOCK_CLOCK
async def test_a_slow_hook_or_join_does_not_delay_the_expiry() -> None:
    class Slow(Channel[None]):
        async def join(self, topic: str, payload: Any, user: Any) -> Any:
            await trio.sleep_forever()

    async with (
        serving_channels(Slow, connect=issue) as site,
        site.dial() as raw,
    ):
        await raw.send("1", "1", "room:1", "phx_join", {})
        assert await closed_at(raw) == 100


@MOCK_CLOCK
async def test_a_client_that_closes_before_leaves_no_timer() -> None:
    async with client() as (site, raw):
        await raw.connection.aclose()
        await trio.sleep(1000)
        assert not site.server.connections


# Renewal.


@MOCK_CLOCK
async def test_a_new_token_extends_the_connection_and_later_joins_get_the_new_user() -> None:
    async with client() as (_, raw):
        await trio.sleep(90)
        assert await push(raw, "al2:200") == ("ok", None)
        await trio.sleep(90)
        echo = await raw.ask("1", "2", "room:1", "echo", {})
        assert echo[4]["response"] == {"event": "echo", "user": "al"}
        reply = await raw.ask("3", "3", "room:2", "phx_join", {})
        assert reply[4]["response"] == {"user": "al2"}
        assert await closed_at(raw) == 200


@MOCK_CLOCK
async def test_a_token_can_be_pushed_to_the_topic_phoenix_without_a_join() -> None:
    async with (
        serving_channels(Room, connect=issue, refresh=refresh) as site,
        site.dial() as raw,
    ):
        payload = {"access_token": "al:300"}
        reply = await raw.ask(None, "1", "phoenix", "access_token", payload)
        expected = {"response": {}, "status": "ok"}
        assert reply == [None, "1", "phoenix", "phx_reply", expected]
        assert await closed_at(raw) == 300


@MOCK_CLOCK
@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("no", "unauthorized"),
        ("al:-1", "the credentials have expired"),
        ("boom", "refresh failed"),
        (None, "invalid access_token"),
        ("", "invalid access_token"),
        (5, "invalid access_token"),
        ("x" * 20_000, "invalid access_token"),
    ],
)
async def test_a_refused_token_changes_nothing(
    token: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client() as (_, raw):
        assert await push(raw, token) == ("error", reason)
        assert await push(raw, token) == ("error", reason)
        await raw.alive()
        assert await closed_at(raw) == 100
    assert ("the database is down" in caplog.text) == (token == "boom")


@MOCK_CLOCK
@pytest.mark.parametrize("payload", [{}, [], "al", None])
async def test_a_push_without_a_token_is_refused(payload: Any) -> None:
    async with client() as (_, raw):
        reply = await raw.ask("1", "2", "room:1", "access_token", payload)
        assert reply[4] == {"response": {"reason": "invalid access_token"}, "status": "error"}


@MOCK_CLOCK
async def test_a_token_of_another_user_is_refused_if_connections_have_ids() -> None:
    """Otherwise disconnect() would not reach the connection any more."""
    async with client(id=lambda user: user) as (site, raw):
        assert await push(raw, "bo:500") == (
            "error",
            "the access_token belongs to another user",
        )
        assert await push(raw, "al:500") == ("ok", None)
        await site.channels.disconnect("al")
        with pytest.raises(ConnectionClosed):
            await raw.receive()
        assert raw.connection.close_code == 1001


@MOCK_CLOCK
async def test_refresh_may_remove_the_expiry_or_bring_it_forward() -> None:
    async with client() as (_, raw):
        assert await push(raw, "al") == ("ok", None)
        await trio.sleep(3000)
        assert await push(raw, f"al:{3000 + 10}") == ("ok", None)
        assert await closed_at(raw) == 3000 + 10


@MOCK_CLOCK
async def test_an_async_refresh_delays_nothing_and_gets_the_current_user() -> None:
    users = []

    async def slowly(token: str, user: Any) -> Any:
        users.append(user)
        await trio.sleep(5)
        return read_token(token)

    async with client(refresh=slowly) as (_, raw):
        await raw.send("1", "2", "room:1", "access_token", {"access_token": "al2:200"})
        await raw.send("1", "3", "room:1", "access_token", {"access_token": "al3:300"})
        await raw.alive()
        assert (await raw.ask("1", "4", "room:1", "echo", {}))[1] == "4"
        assert trio.current_time() == 0
        assert [(await raw.receive())[1] for _ in range(2)] == ["2", "3"]
        assert trio.current_time() == 10
        assert await closed_at(raw) == 300
    assert users == ["al", "al2"]


@MOCK_CLOCK
async def test_the_connection_is_closed_even_while_refresh_runs() -> None:
    async def never(token: str, user: Any) -> Any:
        await trio.sleep_forever()

    async with client(refresh=never) as (_, raw):
        await trio.sleep(99)
        await raw.send("1", "2", "room:1", "access_token", {"access_token": "al:200"})
        assert await closed_at(raw) == 100


def counting(count: list[str], seconds: float) -> Callable[[str, Any], Any]:
    async def verify(token: str, user: Any) -> Any:
        count.append(token)
        await trio.sleep(seconds)
        return read_token(token)

    return verify


@MOCK_CLOCK
@pytest.mark.parametrize("token", ["al:200", "no"])
async def test_equal_tokens_on_many_topics_are_verified_once(token: str) -> None:
    """The clients of Supabase push the token on each topic."""
    tokens: list[str] = []
    async with client(refresh=counting(tokens, 1)) as (_, raw):
        for number in range(2, 22):
            await raw.join(f"room:{number}", str(number))
        payload, status = {"access_token": token}, "error" if token == "no" else "ok"
        for number in range(2, 22):
            await raw.send(str(number), "t", f"room:{number}", "access_token", payload)
        for number in range(2, 22):
            reply = await raw.receive()
            assert (reply[2], reply[4]["status"]) == (f"room:{number}", status)
        assert tokens == [token]
        await trio.sleep(10)
        assert (await push(raw, token))[0] == status
        # A refused token may be valid later.
        assert len(tokens) == (1 if status == "ok" else 2)


@MOCK_CLOCK
async def test_tokens_that_wait_for_a_slow_refresh_are_bounded() -> None:
    tokens: list[str] = []
    async with client(refresh=counting(tokens, 1), max_topics=5) as (_, raw):
        for number in range(10):
            payload = {"access_token": f"al:{200 + number}"}
            await raw.send("1", str(number), "room:1", "access_token", payload)
        replies = [await raw.receive() for _ in range(10)]
        assert [reply[1] for reply in replies] == [*"5678901234"]
        reason = "too many messages are waiting"
        assert [reply[4]["response"].get("reason") for reply in replies[:5]] == [reason] * 5
        assert len(tokens) == 5


@MOCK_CLOCK
async def test_tokens_count_as_joins() -> None:
    """Each may cost a query of a database."""
    tokens: list[str] = []
    async with client(refresh=counting(tokens, 0), max_topics=4, join_rate=Rate(4, per=10)) as (
        _,
        raw,
    ):
        for _ in range(3):
            assert await push(raw, "no") == ("error", "unauthorized")
        for _ in range(4):
            assert await push(raw, "no") == ("error", "too many joins")
        await raw.send("1", "2", "room:1", "access_token", {"access_token": "no"})
        with pytest.raises(ConnectionClosedError):
            await raw.receive()
        assert raw.connection.close_code == 1008
    assert len(tokens) == 3


@MOCK_CLOCK
async def test_a_token_is_not_answered_after_its_topic_has_ended_but_is_used() -> None:
    async with client(refresh=counting([], 1)) as (_, raw):
        await raw.send("1", "2", "room:1", "access_token", {"access_token": "al:200"})
        await raw.send("1", "3", "room:1", "phx_leave", {})
        assert [(await raw.receive())[1] for _ in range(2)] == ["3", "1"]
        await trio.sleep(2)
        await raw.alive()
        assert await closed_at(raw) == 200


@MOCK_CLOCK
async def test_without_refresh_the_event_is_like_any_other() -> None:
    async with client(refresh=None, join_rate=Rate(100, per=1000)) as (_, raw):
        for number in range(120):
            ref = str(number)
            reply = await raw.ask("1", ref, "room:1", "access_token", {"access_token": "al:200"})
            assert reply[4]["response"] == {"event": "access_token", "user": "al"}
        assert await closed_at(raw) == 100


# With the client of this package, and options.


@MOCK_CLOCK
async def test_the_client_of_this_package_renews_its_credentials() -> None:
    async with (
        serving_channels(Room, connect=issue, refresh=refresh) as site,
        site.phoenix(params={"token": "al:100"}) as client,
    ):
        room = await client.join("room:1")
        for expiry in range(150, 1000, 50):
            reply = await room.push("access_token", {"access_token": f"al:{expiry}"})
            assert reply.ok
            await trio.sleep(50)
        assert room.join_count == 1


@pytest.mark.parametrize(
    "expires_at",
    [
        None,
        "tomorrow",
        True,
        float("nan"),
        pytest.param(10**400, id="huge"),
        dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
    ],
)
def test_an_expiry_that_is_no_time_is_refused(expires_at: Any) -> None:
    with pytest.raises(InvalidOption, match="Unix time"):
        Credentials("al", expires_at)


def test_refresh_must_be_a_function() -> None:
    with pytest.raises(InvalidOption, match="refresh must be a function"):
        Channels({"room:*": Room}, hub=Hub(), refresh="token")  # type: ignore[arg-type]
