"""Tracebacks of connections that could not be opened: they end in the code of the user."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from trioglock import Socket, connect, run
from trioglock.protocols import phoenix


async def enter(manager: Any) -> None:
    async with manager:
        pass


REFUSED: dict[str, Callable[[], Awaitable[object]]] = {
    "connect": lambda: enter(connect("ws://127.0.0.1:1")),
    "a name with several addresses": lambda: enter(connect("ws://localhost:1")),
    "run": lambda: run("ws://127.0.0.1:1", Socket()),
    "phoenix": lambda: enter(phoenix.connect("ws://127.0.0.1:1", reconnect=False)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_fault_36_a_refused_connect_has_a_short_traceback(name: str) -> None:
    """At most 15 lines of trio, this test and the cause; no frame of the package is left."""

    async def main() -> None:
        await REFUSED[name]()

    with pytest.raises(OSError, match="Connection refused") as caught:
        trio.run(main)
    text = "".join(traceback.format_exception(caught.value))
    assert "/trioglock/" not in text.replace(__file__, "")
    assert len(text.splitlines()) <= 20
    assert __file__ in text
    assert "ConnectionRefusedError" in text


def test_fault_36_frames_of_the_user_stay() -> None:
    """A function of the user that fails is part of the traceback."""

    async def open_stream() -> trio.abc.Stream:
        raise OSError("no tunnel")

    async def main() -> None:
        await enter(connect("ws://h/", stream=open_stream))

    with pytest.raises(OSError, match="no tunnel") as caught:
        trio.run(main)
    assert "in open_stream" in "".join(traceback.format_exception(caught.value))
