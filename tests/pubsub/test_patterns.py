"""Patterns of channels, compared with a Redis server."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.cases import case_of
from tests.pubsub.redis_server import RealRedis
from trioglock.pubsub import Hub
from trioglock.pubsub.patterns import ChannelFilter, compile_pattern

hiredis = pytest.importorskip("hiredis")

PATTERNS = [
    # pattern, channels that match, channels that do not
    ("a*c", ["ac", "a/b/c", "acc"], ["acb", "bac", "A/c"]),
    ("a?c", ["abc", "a/c"], ["ac", "abbc"]),
    ("[ab]x", ["ax", "bx"], ["cx", "[ab]x", "x"]),
    ("[^e]", ["a", "^"], ["e", ""]),
    ("[!e]", ["!", "e"], ["a"]),
    ("[c-a]", ["a", "b", "c"], ["-", "d"]),
    (r"a\*b", ["a*b"], ["aab", r"a\*b"]),
    (r"[\]]", ["]"], ["\\"]),
    ("[]a]", [], ["]", "a", "a]"]),
    ("[ab", ["a", "b"], ["[ab"]),
    ("[a-", ["a", "-"], ["b"]),
    ("a\\", ["a\\"], ["a"]),
    ("a.c", ["a.c"], ["abc"]),
    ("a\n*", ["a\nb\nc"], ["a"]),
    ("??", ["ä", "ab"], ["a", "äö"]),  # bytes
    ("*a*b*a*", ["xaxbxax"], ["ab", "aab"]),
    ("*" * 30 + "b", ["a" * 100 + "b"], ["a" * 100]),
    ("*a" * 30, ["a" * 1000], ["a" * 1000 + "b"]),
]


async def test_fault_50_patterns_follow_redis() -> None:
    for pattern, matching, others in PATTERNS:
        with case_of(pattern):
            async with Hub() as hub:
                subscription = hub.subscribe(pattern)
                for channel in filter(None, (*matching, *others)):
                    await hub.publish(channel, channel=channel)
                got = [(await subscription.__anext__()).data for _ in range(len(subscription))]
                assert got == matching


def test_a_filter_of_one_channel_is_no_pattern() -> None:
    """Nor is a literal one. Each includes broadcasts."""
    assert (ChannelFilter("a").channel, ChannelFilter("*", literal=True).channel) == ("a", "*")
    for pattern in (r"a\*", "a*", "[a]", "?"):
        assert ChannelFilter(pattern).channel is None
    for one in (ChannelFilter("a"), ChannelFilter("b*")):
        assert one("")
    assert list(ChannelFilter("a").names()) == ["", "a"]
    assert list(ChannelFilter("").names()) == list(ChannelFilter("b*").names()) == [""]


@pytest.fixture
def ask(redis: RealRedis) -> Any:
    """Return a function that sends commands and returns their replies."""
    connection, reader = socket.create_connection(("127.0.0.1", redis.port), 5), hiredis.Reader()

    def send(*commands: tuple[str | bytes, ...]) -> list[Any]:
        connection.sendall(b"".join(map(hiredis.pack_command, commands)))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reader.feed(connection.recv(2**16))
            while (reply := reader.gets()) is not False:
                replies.append(reply)
        return replies

    with connection:
        yield send


texts = st.text("ab^*?-[]\\", max_size=8) | st.text("abäöc/*[]-", max_size=6)
channels = st.lists(texts.filter(bool), min_size=20, max_size=40, unique=True)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pattern=texts, channels=channels)
def test_fault_50_patterns_match_as_in_a_redis_server(
    pattern: str, channels: list[str], ask: Callable[..., list[Any]]
) -> None:
    """Redis matches keys and channels with the same function."""
    # The platform of the server decides how the bytes of such a range compare: as signed or not.
    assume(not re.search(r"\[.*(-[^\x00-\x7f]|[^\x00-\x7f]-)", pattern))
    keys = [f"prefix/{channel}" for channel in channels]
    *_, found, _ = ask(
        ("MSET", *(part for key in keys for part in (key, ""))),
        ("KEYS", f"prefix/{pattern}"),
        ("DEL", *keys),
    )
    expected = {key.decode().removeprefix("prefix/") for key in found}
    matches = compile_pattern(pattern)
    assert {channel for channel in channels if matches(channel)} == expected
