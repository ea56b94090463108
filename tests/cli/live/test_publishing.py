"""Requests to publish: invalid ones get a reason and harm neither the hub nor the connection."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.cases import case_of
from tests.cli.serving import open_hub, publish_request
from trioglock import ConnectionClosedError
from trioglock.errors import BrokerUnavailable
from trioglock.pubsub import Hub, Message

BAD: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("hello", "a JSON object"),
    "no object": ("[1]", "a JSON object"),
    "binary": (b"{}", "a JSON object"),
    "nested without end": ("[" * 100_000, "a JSON object"),
    "a number without end": ("9" * 10_000, "a JSON object"),
    "nothing": ("{}", "a channel must be a string"),
    "no channel": ('{"channel": null, "data": "x"}', "a channel must be a string"),
    "a list of channels": ('{"channel": ["a"], "data": "x"}', "a channel must be a string"),
    "a slash in front": (publish_request("/news"), "must not start with a slash"),
    "a line break in the channel": (
        publish_request("a\r\nb"),
        "must not contain control characters",
    ),
    "a null in the channel": (publish_request("a\0b"), "must not contain control characters"),
    "an escape in the channel": (publish_request("\x1b[2J"), "must not contain control characters"),
    "a C1 control in the channel": (
        publish_request("a\x9bb"),
        "must not contain control characters",
    ),
    "half a character in the channel": (
        '{"channel": "\\ud800", "data": ""}',
        "must be valid Unicode",
    ),
    "a channel without end": (publish_request("x" * 1025), "at most 1,024 characters, not 1,025"),
    "half a character": ('{"channel": "a", "data": "\\udfff"}', "not valid Unicode"),
    "no data": ('{"channel": "a"}', "either data or base64"),
    "a number as data": ('{"channel": "a", "data": 1}', "either data or base64"),
    "both": (publish_request(base64=""), "either data or base64"),
    "no base64": ('{"channel": "a", "base64": "!"}', "not valid base64"),
    "another hub": (publish_request(hub="other"), "the hub is named trioglock, not 'other'"),
    "a hub that is none": (publish_request(hub={}), "the hub is named trioglock"),
    "something else": (publish_request(chanel=1), "unknown field 'chanel'"),
}


async def ask(conn: Any, frame: str | bytes) -> dict[str, Any]:
    """Send a request and return the response."""
    await conn.send(frame)
    answer = json.loads(await conn.receive())
    assert isinstance(answer, dict)
    return answer


async def test_invalid_requests() -> None:
    """The response has a reason, nothing is published, and the next request works."""
    for name, (frame, why) in BAD.items():
        with case_of(name):
            async with open_hub() as server, server.publisher() as conn:
                answer = await ask(conn, frame)
                assert answer["published"] is False
                assert why in answer["error"]
                assert len(answer["error"]) < 200
                assert server.hub.statistics().received == 0
                assert await ask(conn, publish_request()) == {"published": True, "delivered": 0}


async def test_a_message_that_is_too_long() -> None:
    """Its connection is closed with 1009, no other one."""
    async with open_hub() as server, server.publisher() as other:
        async with server.publisher() as conn:
            await conn.send(publish_request(data="x" * 2**20))
            with pytest.raises(ConnectionClosedError, match="1009"):
                await conn.receive()
        assert (await ask(other, publish_request()))["published"] is True


async def test_messages_arrive_unchanged() -> None:
    """Also control characters and markup; binary data arrives as bytes."""
    texts = ["", "\0\x1b[2J\r\n\x7f", "<script>alert(1)</script>", "gr\xfc\xdfe \U0001f600"]
    async with open_hub() as server, server.publisher() as conn:
        events = server.hub.subscribe("news")
        for text in texts:
            assert await ask(conn, publish_request(data=text)) == {
                "published": True,
                "delivered": 1,
            }
            assert await anext(events) == Message("news", text)
        binary = {"channel": "news", "base64": base64.b64encode(b"\0\xff").decode()}
        assert (await ask(conn, json.dumps(binary)))["published"] is True
        assert await anext(events) == Message("news", b"\0\xff")


async def test_number_of_subscribers() -> None:
    """Those of the channel, or all of them."""
    async with (
        open_hub() as server,
        server.site.dial("/news"),
        server.site.dial("/news"),
        server.site.dial("/other"),
        server.publisher() as conn,
    ):
        await trio.testing.wait_all_tasks_blocked()
        for channel, delivered in (("news", 2), ("other", 1), ("", 3), ("nobody", 0)):
            assert (await ask(conn, publish_request(channel)))["delivered"] == delivered


async def test_number_of_subscribers_is_unknown_while_others_publish() -> None:
    """The response has no number rather than a wrong one."""
    async with open_hub() as server, server.publisher() as conn, trio.open_nursery() as nursery:
        # Each message fills its queue, so other tasks run before a publish returns.
        slow = server.hub.subscribe("news", max_queue=1, overflow="drop_oldest")

        async def others() -> None:
            while True:
                await server.hub.publish("hello", "news")

        # Enough tasks that one of them runs between the two reads of the statistics.
        for _ in range(30):
            nursery.start_soon(others)
        assert await ask(conn, publish_request()) == {"published": True, "delivered": None}
        nursery.cancel_scope.cancel()
        slow.close()


async def test_unavailable_broker() -> None:
    """The response contains the error of the broker."""

    class Away(Hub):
        async def publish(self, *_: object) -> None:
            raise BrokerUnavailable("Redis was not reached")

    async with open_hub(hub=Away()) as server, server.publisher() as conn:
        answer = await ask(conn, publish_request())
        assert answer == {"published": False, "error": "Redis was not reached"}


async def test_token_of_a_page(autojump_clock: MockClock) -> None:
    """The response to a wrong token takes a second; the right one publishes."""
    async with open_hub(token="open-sesame") as server, server.page() as page:
        assert (await page.next("hello"))["publish"] == "token"
        for token in ("", "open", 1, None):
            started = trio.current_time()
            await page.conn.send(publish_request(token=token))
            refusal = {"published": False, "error": "the publish token is wrong"}
            assert await page.next("response") == refusal
            assert trio.current_time() - started >= 1
        await page.conn.send(publish_request(token="open-sesame"))
        assert (await page.next("response"))["published"] is True
