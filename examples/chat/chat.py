"""A chat: each path is a room, and everyone sees who is there.

    python examples/chat/chat.py

Open http://127.0.0.1:8030/ in two windows. The names are kept in this process; rooms that span
several processes would keep them in Redis, where the messages then travel.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import trio

from trioglock import Close, ConnectionInfo, Disconnect, InvalidOption, Request, Response, serve
from trioglock.pubsub import Hub, HubSocket

PAGE = Path(__file__).with_name("page.html").read_bytes()
HTML = {"Content-Type": "text/html; charset=utf-8"}
LONGEST = 2000


class Presence:
    """Who is in which room; somebody with two windows is there once."""

    def __init__(self) -> None:
        self._rooms: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def enter(self, room: str, name: str) -> bool:
        """Whether that is news."""
        self._rooms[room][name] += 1
        return self._rooms[room][name] == 1

    def leave(self, room: str, name: str) -> bool:
        """Whether nobody of this name is left."""
        here = self._rooms[room]
        here[name] -= 1
        if here[name]:
            return False
        del here[name]
        if not here:
            del self._rooms[room]
        return True

    def names(self, room: str) -> list[str]:
        return sorted(self._rooms[room]) if room in self._rooms else []


class Guest(HubSocket):
    """One window: ``/rooms/<room>?name=<name>``."""

    name = ""

    def __init__(self, hub: Hub, presence: Presence) -> None:
        super().__init__(hub)
        self.presence = presence

    def channel_of(self, stream: ConnectionInfo) -> str:
        channel = super().channel_of(stream)
        [name] = parse_qs(urlsplit(stream.url).query).get("name", [""])
        if not channel.startswith("rooms/") or not 0 < len(name.strip()) <= 30:
            raise InvalidOption("come with a room and a name")
        self.name = name.strip()
        return channel

    def handle_connect(self, info: ConnectionInfo, state: Any) -> Any:
        if state is not None:
            info.connection.start_soon(self.enter, state.channel)
        return super().handle_connect(info, state)

    async def enter(self, room: str) -> None:
        news = self.presence.enter(room, self.name)
        await self.tell(room, {"event": "joined" if news else "here", "name": self.name})

    async def handle_receive(self, frame: Any, state: Any) -> tuple[Any, Any]:
        if not isinstance(frame, str) or len(frame) > LONGEST:
            return Close(1008, f"text of at most {LONGEST} characters"), state
        said = {"event": "said", "name": self.name, "text": frame}
        return await self.publish(json.dumps(said), state.channel), state

    async def terminate(self, reason: Disconnect, state: Any) -> None:
        super().terminate(reason, state)
        if state is not None and self.presence.leave(state.channel, self.name):
            await self.tell(state.channel, {"event": "left", "name": self.name})

    async def tell(self, room: str, event: dict[str, object]) -> None:
        event["names"] = self.presence.names(room)
        await self.publish(json.dumps(event), room)


def answer(request: Request) -> Response | None:
    """The page for every room; WebSockets go on."""
    if "Upgrade" in request.headers:
        return None
    if request.path == "/" or unquote(request.path).startswith("/rooms/"):
        return Response(200, PAGE, HTML)
    return Response(404, "there is nothing here")


async def main(port: int) -> None:
    presence = Presence()
    hub = Hub(overflow="close")
    target = partial(Guest, hub, presence)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as stop:
        async with hub, serve(target, "127.0.0.1", port, process_request=answer) as server:
            print(f"open http://127.0.0.1:{server.port}/", flush=True)
            await anext(stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8030, help="0 for one that is free")
    options = parser.parse_args()
    trio.run(main, options.port)
