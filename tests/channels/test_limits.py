"""The limits of one client: messages, joins, and what waits for slow hooks."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import trio

from tests.channels.helpers import RawPhoenix, serving_channels
from tests.protocols.clock import MOCK_CLOCK
from trioglock import Rate
from trioglock.channels import Answer, Channel, Channels, JoinRefused
from trioglock.channels.actor import MAX_PENDING_SIZE
from trioglock.channels.limits import TokenBucket
from trioglock.errors import ConnectionClosedError, InvalidOption
from trioglock.pubsub import Hub


class Room(Channel[None]):
    """Echoes; some topics cannot be joined."""

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        if topic == "room:fail":
            raise RuntimeError
        if topic.startswith("room:no"):
            raise JoinRefused({"reason": "unauthorized"})
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return Answer("ok", payload), state


class Slow(Channel[None]):
    """Never answers."""

    async def handle_in(self, event: str, payload: Any, state: None) -> Any:
        await trio.sleep_forever()


def error(join_ref: str | None, ref: str, topic: str, reason: str) -> list[Any]:
    payload = {"response": {"reason": reason}, "status": "error"}
    return [join_ref, ref, topic, "phx_reply", payload]


async def close_code(raw: RawPhoenix) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosedError):
        while True:
            await raw.receive()
    return raw.connection.close_code, raw.connection.close_reason


# Messages.


@MOCK_CLOCK
async def test_messages_beyond_the_limit_get_an_error_until_it_allows_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_channels(Room, message_rate=Rate(5, per=10)) as site, site.dial() as raw:
        await raw.join()
        for number in range(2, 6):
            assert (await raw.ask("1", str(number), "room:1", "x", {}))[4]["status"] == "ok"
        too_many = "too many messages"
        assert await raw.ask("1", "6", "room:1", "x", {}) == error("1", "6", "room:1", too_many)
        await trio.sleep(10)  # the refused message counts
        assert (await raw.ask("1", "7", "room:1", "x", {}))[4]["status"] == "ok"
        await trio.sleep(1000)
        for number in range(5):
            assert (await raw.ask("1", str(number), "room:1", "x", {}))[4]["status"] == "ok"
        assert await raw.ask("1", "8", "room:1", "x", {}) == error("1", "8", "room:1", too_many)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "sends too many messages" in record.getMessage()
    assert "message_rate" in record.getMessage()


MESSAGES: dict[str, list[Any]] = {
    "heartbeats": [None, "2", "phoenix", "heartbeat", {}],
    "pushes": ["1", "2", "room:1", "x", {}],
    "unknown topics": ["1", "2", "room:2", "x", {}],
    "leaves": ["1", "2", "room:2", "phx_leave", {}],
    "stale pushes": ["0", "2", "room:1", "x", {}],
    "unroutable joins": ["2", "2", "nope", "phx_join", {}],
    "tokens": ["1", "2", "room:1", "access_token", {"access_token": "no"}],
}


@MOCK_CLOCK
@pytest.mark.parametrize("kind", MESSAGES)
async def test_a_client_that_does_not_stop_is_closed_with_1008(kind: str) -> None:
    async with (
        serving_channels(Room, message_rate=Rate(20, per=10), join_rate=None) as site,
        site.dial() as raw,
        site.dial() as other,
    ):
        await raw.join()
        message = MESSAGES[kind]
        for _ in range(19):
            await raw.send(*message)
            if kind != "stale pushes":
                await raw.receive()
        for _ in range(20):
            join_ref, ref, topic, *_ = message
            refusal = error(join_ref, ref, topic, "too many messages")
            if kind == "leaves":  # counted only
                refusal[4] = {"response": {}, "status": "ok"}
            assert await raw.ask(*message) == refusal
        await raw.send(*message)
        assert await close_code(raw) == (1008, "too many messages")
        await other.alive()


@MOCK_CLOCK
async def test_a_client_at_the_limit_is_never_refused() -> None:
    async with serving_channels(Room, message_rate=Rate(20, per=2)) as site, site.dial() as raw:
        await raw.join()
        for number in range(100):
            await trio.sleep(0.1)
            assert (await raw.ask("1", str(number), "room:1", "x", {}))[4]["status"] == "ok"


@MOCK_CLOCK
async def test_a_binary_push_beyond_the_limit_gets_an_error_as_json() -> None:
    async with serving_channels(Room, message_rate=Rate(1)) as site, site.dial() as raw:
        await raw.join()
        await raw.connection.send(bytes([0, 1, 1, 6, 1]) + b"12room:1x\xcc")
        assert await raw.receive() == error("1", "2", "room:1", "too many messages")


# Joins.


@MOCK_CLOCK
@pytest.mark.parametrize("topic", ["room:fail", "room:no", "nope"])
async def test_a_client_whose_joins_fail_again_and_again_is_limited(topic: str) -> None:
    async with (
        serving_channels(Room, join_rate=Rate(5, per=10), max_topics=5) as site,
        site.dial() as raw,
    ):
        await raw.join()
        for number in range(4):
            reply = await raw.ask(str(number), str(number), topic, "phx_join", {})
            assert reply[4]["response"]["reason"] != "too many joins"
        for number in range(5):
            ref = str(number)
            answer = await raw.ask(ref, ref, topic, "phx_join", {})
            assert answer == error(ref, ref, topic, "too many joins")
            assert (await raw.ask("1", ref, "room:1", "x", {}))[4]["status"] == "ok"
        await raw.send("7", "7", topic, "phx_join", {})
        assert await close_code(raw) == (1008, "too many joins")


@MOCK_CLOCK
async def test_leaving_and_joining_in_turn_is_limited() -> None:
    async with (
        serving_channels(Room, join_rate=Rate(5, per=10), max_topics=5) as site,
        site.dial() as raw,
    ):
        for number in range(5):
            ref = str(number)
            await raw.join("room:1", ref)
            await raw.send(ref, "leave", "room:1", "phx_leave", {})
            assert [(await raw.receive())[1] for _ in range(2)] == ["leave", ref]
        assert await raw.ask("6", "6", "room:1", "phx_join", {}) == error(
            "6", "6", "room:1", "too many joins"
        )
        await trio.sleep(4)
        await raw.join("room:1", "7")


@MOCK_CLOCK
async def test_a_leave_beyond_the_limit_is_handled_and_counts() -> None:
    async with (
        serving_channels(Room, message_rate=Rate(3, per=1000), join_rate=None) as site,
        site.dial() as raw,
    ):
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        await raw.send("1", "3", "room:1", "x", {})
        assert [(await raw.receive())[4]["status"] for _ in range(2)] == ["ok", "ok"]
        reply = await raw.ask("1", "4", "room:1", "x", {})
        assert reply == error("1", "4", "room:1", "too many messages")
        reply = await raw.ask("1", "5", "room:1", "phx_leave", {})
        assert reply[1:] == ["5", "room:1", "phx_reply", {"response": {}, "status": "ok"}]
        assert (await raw.receive())[3] == "phx_close"
        for _ in range(10):
            await raw.send("1", "6", "room:1", "phx_leave", {})
        assert await close_code(raw) == (1008, "too many messages")


@MOCK_CLOCK
async def test_a_join_beyond_the_limit_leaves_the_earlier_join_of_its_topic_alone() -> None:
    async with (
        serving_channels(Room, join_rate=Rate(1, per=10), max_topics=1) as site,
        site.dial() as raw,
    ):
        await raw.join()
        assert (await raw.ask("2", "2", "room:1", "phx_join", {}))[4]["status"] == "error"
        assert (await raw.ask("1", "3", "room:1", "x", {}))[4]["status"] == "ok"


@MOCK_CLOCK
async def test_clients_that_join_all_topics_again_after_a_failure_do_not_meet_the_limits() -> None:
    """As phoenix.js does: after 1, 2, 5 and then every 10 seconds."""
    async with serving_channels(Room) as site, site.dial() as raw:
        ref = 0
        for seconds in (0, 1, 2, 5, 10, 10):
            await trio.sleep(seconds)
            for number in range(100):
                ref += 1
                await raw.send(str(ref), str(ref), f"room:no:{number}", "phx_join", {})
            for _ in range(100):
                assert (await raw.receive())[4]["response"] == {"reason": "unauthorized"}


@MOCK_CLOCK
async def test_none_turns_the_limits_off() -> None:
    async with (
        serving_channels(Room, message_rate=None, join_rate=None) as site,
        site.dial() as raw,
    ):
        for number in range(2010):
            ref = str(number)
            await raw.send(ref, ref, "room:no", "phx_join", {})
        for _ in range(2010):
            assert (await raw.receive())[4]["response"] == {"reason": "unauthorized"}
        await raw.alive()


@MOCK_CLOCK
async def test_long_topics_and_refs_cannot_be_joined() -> None:
    """A client could make the server keep 100 megabytes."""
    async with serving_channels(Room) as site, site.dial() as raw:
        long, reason = "x" * 1100, "topic or ref too long"
        for join_ref, ref, topic in (
            ("1", "1", "room:" + long),
            (long, "1", "room:1"),
            ("1", long, "room:1"),
        ):
            reply = await raw.ask(join_ref, ref, topic, "phx_join", {})
            assert reply == error(join_ref, ref, topic, reason)
        await raw.join("room:" + "x" * 1000, "y" * 1000)


@MOCK_CLOCK
@pytest.mark.parametrize("event", ["push", "phx_leave", "heartbeat", "access_token"])
async def test_messages_with_long_refs_are_not_handled(event: str) -> None:
    """The server may have to keep a ref until the message is answered."""
    handled = []

    class Listener(Channel[None]):
        def handle_in(self, event: str, payload: Any, state: None) -> Any:
            handled.append(event)
            return Answer("ok"), state

    async with (
        serving_channels(
            Listener, connect=lambda request: "al", refresh=lambda token, user: user
        ) as site,
        site.dial() as raw,
    ):
        await raw.join()
        long, reason = "x" * 1100, "topic or ref too long"
        for topic in ("room:1", "phoenix"):
            for join_ref, ref in ((long, "2"), ("1", long), (None, long)):
                reply = await raw.ask(join_ref, ref, topic, event, {"access_token": "a"})
                assert reply == error(join_ref, ref, topic, reason)
        assert (await raw.ask("1", "3", "room:1", "hi", {}))[4]["status"] == "ok"
        assert handled == ["hi"]


@MOCK_CLOCK
async def test_of_many_leaves_behind_a_slow_hook_one_waits() -> None:
    """The others are answered immediately, so the server need not keep their refs."""
    async with serving_channels(Slow, message_rate=None) as site, site.dial() as raw:
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {})
        await raw.send("1", "first", "room:1", "phx_leave", {})
        for number in range(100):
            ref = str(number)
            reply = await raw.ask("1", ref, "room:1", "phx_leave", {})
            assert reply[:2] == ["1", ref]
            assert reply[4] == {"response": {}, "status": "ok"}
        await raw.alive()


# What waits.


@MOCK_CLOCK
async def test_the_size_of_pushes_that_wait_for_slow_hooks_is_limited() -> None:
    async with (
        serving_channels({"slow:*": Slow, "room:*": Room}) as site,
        site.dial(max_size=None) as raw,
    ):
        for topic in ("slow:1", "slow:2", "room:1"):
            await raw.join(topic, topic)
        big, count = {"text": "x" * 500_000}, MAX_PENDING_SIZE // 500_000
        for topic in ("slow:1", "slow:2"):
            await raw.send(topic, "first", topic, "x", big)  # it runs and does not wait
        for number in range(count):
            topic = f"slow:{1 + number % 2}"
            await raw.send(topic, str(number), topic, "x", big)
        reason = "too many messages are waiting"
        assert await raw.ask("slow:1", "z", "slow:1", "x", big) == error(
            "slow:1", "z", "slow:1", reason
        )
        assert (await raw.ask("room:1", "2", "room:1", "x", {}))[4]["status"] == "ok"
        # The end of a topic makes room for others.
        await raw.send("again", "again", "slow:1", "phx_join", {})
        assert [(await raw.receive())[1] for _ in range(2)] == ["again", "slow:1"]
        for number in range(count // 2 + 1):
            await raw.send("again", str(number), "slow:1", "x", big)
        await raw.alive()


@MOCK_CLOCK
async def test_pushes_that_have_been_handled_make_room_for_others() -> None:
    class Second(Channel[None]):
        async def handle_in(self, event: str, payload: Any, state: None) -> Any:
            await trio.sleep(1)
            return Answer("ok"), state

    async with serving_channels(Second) as site, site.dial() as raw:
        await raw.join()
        big, count = {"text": "x" * 500_000}, MAX_PENDING_SIZE // 500_000
        for _ in range(3):
            for number in range(count):
                await raw.send("1", str(number), "room:1", "x", big)
            for number in range(count):
                message = await raw.receive()
                assert (message[1], message[4]["status"]) == (str(number), "ok")


async def test_a_message_larger_than_max_size_closes_with_1009() -> None:
    async with (
        serving_channels(Room, serve_options={"max_size": 1000}) as site,
        site.dial() as raw,
    ):
        await raw.join()
        await raw.send("1", "2", "room:1", "x", {"text": "x" * 1000})
        assert (await close_code(raw))[0] == 1009


async def test_a_joined_topic_takes_less_than_3_kilobytes() -> None:
    async with serving_channels(Room, max_topics=500) as site, site.dial() as raw:
        await raw.join()
        await raw.ask("1", "2", "room:1", "x", {})
        tracemalloc.start()
        try:
            for number in range(100):
                await raw.join(f"room:{number}:topic", f"{number}")
                await raw.ask(f"{number}", "x", f"room:{number}:topic", "x", {"a": 1})
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size / 100 < 3000


# Options.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"message_rate": 100}, "message_rate must be a Rate"),
        ({"join_rate": (1, 2)}, "join_rate must be a Rate"),
        ({"message_rate": Rate(1, margin=0.1)}, "without a margin"),
        ({"join_rate": Rate(99)}, r"at least max_topics \(100\) joins"),
        ({"max_topics": 501}, r"at least max_topics \(501\) joins"),
    ],
)
def test_invalid_limits_are_refused_at_once(options: Any, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        Channels({"room:*": Room}, hub=Hub(), **options)


@MOCK_CLOCK
async def test_a_large_bucket_reads_the_clock_rarely_and_is_nearly_exact() -> None:
    bucket, reads = TokenBucket(Rate(6400, per=10)), 0

    def take() -> bool:
        nonlocal reads
        if bucket.left:
            bucket.left -= 1
            return True
        reads += 1
        return bucket.take()

    for _ in range(6400):
        assert take()
    assert reads == 64
    assert not take()
    await trio.sleep(5)
    assert sum(take() for _ in range(3300)) == 3199  # one was refused before
    assert not bucket.is_overdrawn
