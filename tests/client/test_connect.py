"""The arguments of connect(): each is checked at the call."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hooks.helpers import URL
from trioglock import InvalidOption, MemoryTransport, Socket, connect


class NotCalled(Socket[None]):
    pass


BAD: dict[str, Any] = {
    "socket": [NotCalled, object(), "socket", 1],
    "transport": [MemoryTransport, "native", 1],
    "open_timeout": [0, -1, "1", float("nan"), True],
    "close_timeout": [0, -1, "1", float("nan"), True],
    "ping_interval": [0, -1, "1"],
    "ping_timeout": [0, -1, "1"],
    "write_timeout": [0, -1, "1"],
    "max_size": [0, -1, 1.5, "1", True],
    "max_queue": [0, -1, 1.5, "1", True],
    "write_limit": [0, -1, None, 1.5],
    "max_redirects": [-1, None, 1.5],
    "overflow": ["drop", None, 1],
    "compression": ["gzip", True],
    "proxy": [False, 1],
    "ssl_context": [True, "cert.pem"],
    "stream": [1, "socket", object()],
    "subprotocols": ["chat", ["a b"], [""], [1], ["a", "a,b"], 1],
    "additional_headers": [
        {"a b": "1"}, {"a": "1\r\n2"}, {"a\r\nb": "1"}, {"": "1"}, {"a": 1}, {"a": "\u20ac"},
        {"a": "b\x7f\x01"}, {"Upgrade": "x"}, [("a",)], "a: b", 5,
    ],
    "origin": [1, b"x", "https://example.org\r\nEvil: 1"],
    "user_agent_header": [1, "a\r\nb"],
    "server_hostname": [1],
    "name": [1, b"x"],
    "reconnect": [None, 3, "yes"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in BAD.items() for value in values]
)
def test_bad_arguments_are_refused_at_the_call(option: str, value: Any) -> None:
    """Not on entering the block, and with the name of the option."""
    with pytest.raises(InvalidOption, match=option.removesuffix("s")):
        connect(URL, **{option: value})


def test_a_class_in_place_of_an_instance_is_told_how_to_write_it() -> None:
    """The most common mistake gets the correct line of code."""
    with pytest.raises(InvalidOption, match=r"write NotCalled\(\)"):
        connect(URL, NotCalled)  # type: ignore[call-overload]
