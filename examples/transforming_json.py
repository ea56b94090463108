"""Typed messages: dataclasses in the program, JSON on the wire.

``handle_send`` and ``handle_receive`` are inverses, so an echo server sends equal objects back. An
exception in ``handle_send`` is raised by the ``send`` that caused it; the connection stays open.

    python examples/transforming_json.py
    python examples/transforming_json.py wss://example.org/echo
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TypeAlias

import trio

from trioglock import Close, Socket, connect
from trioglock.testing import MockServer, echo


@dataclass(frozen=True)
class Join:
    room: str


@dataclass(frozen=True)
class Say:
    room: str
    text: str


Message: TypeAlias = Join | Say

KINDS: dict[str, type[Message]] = {"join": Join, "say": Say}
NAMES = {kind: name for name, kind in KINDS.items()}


class Chat(Socket[None, Message]):
    def handle_send(self, message: Message, state: None) -> tuple[str, None]:
        if type(message) not in NAMES:
            raise TypeError(f"not a chat message: {message!r}")
        return json.dumps({"type": NAMES[type(message)], **asdict(message)}), state

    def handle_receive(self, frame: str, state: None) -> tuple[Message | Close, None]:
        try:
            fields = json.loads(frame)
            return KINDS[fields.pop("type")](**fields), state
        except (ValueError, TypeError, KeyError):
            return Close(1003, "not a chat message"), state


async def chat(url: str) -> None:
    async with connect(url, Chat()) as conn:
        for message in (Join("garden"), Say("garden", "Hello, \u00e9lan!")):
            await conn.send(message)
            answer = await conn.receive()
            print(f"{answer}, equal to what was sent: {answer == message}")
        try:
            await conn.send("just some text")
        except TypeError as error:
            print(f"refused: {error}; the connection is still {conn.status.value}")


async def main() -> None:
    if sys.argv[1:]:
        await chat(sys.argv[1])
    else:
        async with MockServer(echo) as server:
            await chat(server.url)


if __name__ == "__main__":
    trio.run(main)
