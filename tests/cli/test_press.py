"""What publishers may send: anything else is told why, and harms neither hub nor connection."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.cli.hubs import HOST, fronted, publication
from trioglock import ConnectionClosedError
from trioglock.errors import BrokerUnavailable
from trioglock.pubsub import Hub, Message

BAD: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("hello", "a JSON object"),
    "no object": ("[1]", "a JSON object"),
    "binary": (b"{}", "a JSON object"),
    "nested without end": ("[" * 100_000, "a JSON object"),
    "a number without end": ("9" * 10_000, "a JSON object"),
    "nothing": ("{}", "a channel is a string"),
    "no channel": ('{"channel": null, "data": "x"}', "a channel is a string"),
    "a list of channels": ('{"channel": ["a"], "data": "x"}', "a channel is a string"),
    "a slash in front": (publication("/news"), "without a slash in front"),
    "a line break in the channel": (publication("a\r\nb"), "no control characters"),
    "a null in the channel": (publication("a\0b"), "no control characters"),
    "an escape in the channel": (publication("\x1b[2J"), "no control characters"),
    "a C1 control in the channel": (publication("a\x9bb"), "no control characters"),
    "half a character in the channel": ('{"channel": "\\ud800", "data": ""}', "valid Unicode"),
    "a channel without end": (publication("x" * 1025), "at most 1,024 characters, not 1,025"),
    "half a character": ('{"channel": "a", "data": "\\udfff"}', "not valid Unicode"),
    "no data": ('{"channel": "a"}', "either data or base64"),
    "a number as data": ('{"channel": "a", "data": 1}', "either data or base64"),
    "both": (publication(base64=""), "either data or base64"),
    "no base64": ('{"channel": "a", "base64": "!"}', "not base64"),
    "another hub": (publication(hub="other"), "this is the hub trioglock, not 'other'"),
    "a hub that is none": (publication(hub={}), "this is the hub trioglock"),
    "something else": (publication(chanel=1), "has no 'chanel'"),
}


async def ask(conn: Any, frame: str | bytes) -> dict[str, Any]:
    """What the server answers."""
    await conn.send(frame)
    answer = json.loads(await conn.receive())
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize(("frame", "why"), BAD.values(), ids=list(BAD))
async def test_what_cannot_be_published(frame: str | bytes, why: str) -> None:
    """It is told why, nothing is published, and the next one is."""
    async with fronted() as front, front.publisher() as conn:
        answer = await ask(conn, frame)
        assert answer["published"] is False
        assert why in answer["error"]
        assert len(answer["error"]) < 200
        assert front.hub.statistics().received == 0
        assert await ask(conn, publication()) == {"published": True, "delivered": 0}


async def test_a_message_that_is_too_long() -> None:
    """Its connection is closed with 1009, nobody else's."""
    async with fronted() as front, front.publisher() as other:
        async with front.publisher() as conn:
            await conn.send(publication(data="x" * 2**20))
            with pytest.raises(ConnectionClosedError, match="1009"):
                await conn.receive()
        assert (await ask(other, publication()))["published"] is True


async def test_what_is_published_arrives_as_it_was() -> None:
    """Control characters and markup are nobody's business; binary comes as binary."""
    texts = ["", "\0\x1b[2J\r\n\x7f", "<script>alert(1)</script>", "gr\xfc\xdfe \U0001f600"]
    async with fronted() as front, front.publisher() as conn:
        events = front.hub.subscribe("news")
        for text in texts:
            assert await ask(conn, publication(data=text)) == {"published": True, "delivered": 1}
            assert await anext(events) == Message("news", text)
        binary = {"channel": "news", "base64": base64.b64encode(b"\0\xff").decode()}
        assert (await ask(conn, json.dumps(binary)))["published"] is True
        assert await anext(events) == Message("news", b"\0\xff")


async def test_how_many_got_it() -> None:
    """Those of the channel, or everyone."""
    async with (
        fronted() as front,
        front.site.dial("/news"),
        front.site.dial("/news"),
        front.site.dial("/other"),
        front.publisher() as conn,
    ):
        await trio.testing.wait_all_tasks_blocked()
        for channel, delivered in (("news", 2), ("other", 1), ("", 3), ("nobody", 0)):
            assert (await ask(conn, publication(channel)))["delivered"] == delivered


async def test_when_others_publish_too_nobody_knows_how_many_got_it() -> None:
    """Then no number is told, rather than a wrong one."""
    async with fronted() as front, front.publisher() as conn, trio.open_nursery() as nursery:

        async def others() -> None:
            while True:
                await front.hub.publish("hello", "news")

        # So many that one of them has its turn between the two looks at the numbers.
        for _ in range(30):
            nursery.start_soon(others)
        assert await ask(conn, publication()) == {"published": True, "delivered": None}
        nursery.cancel_scope.cancel()


async def test_a_broker_that_is_away() -> None:
    """The publisher is told so."""

    class Away(Hub):
        async def publish(self, *_: object) -> None:
            raise BrokerUnavailable("Redis was not reached")

    async with fronted(hub=Away()) as front, front.publisher() as conn:
        answer = await ask(conn, publication())
        assert answer == {"published": False, "error": "Redis was not reached"}


async def test_a_token_that_is_guessed_by_a_page_takes_its_time(
    autojump_clock: MockClock,
) -> None:
    """Each wrong one a second; the right one publishes."""
    async with (
        fronted(token="open-sesame") as front,
        front.site.dial(
            additional_headers=[("Host", HOST)], subprotocols=["trioglock.live"]
        ) as conn,
    ):
        assert json.loads(await conn.receive())["hello"]["publish"] == "token"
        for token in ("", "open", 1, None):
            began = trio.current_time()
            await conn.send(publication(token=token))
            while "answer" not in (frame := json.loads(await conn.receive())):
                pass
            assert frame["answer"] == {"published": False, "error": "the publish token is wrong"}
            assert trio.current_time() - began >= 1
        await conn.send(publication(token="open-sesame"))
        while "answer" not in (frame := json.loads(await conn.receive())):
            pass
        assert frame["answer"]["published"] is True
