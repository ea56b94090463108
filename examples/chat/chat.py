"""A chat with rooms: each path is a room and shows the names of its members.

    python examples/chat/chat.py

Open http://127.0.0.1:8030/ in two windows. The names are kept in this process. With several
processes, use a RedisBroker for the messages and keep the names in Redis too.
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
MAX_LENGTH = 2000


class Presence:
    """The names in each room; a name with two windows is listed once."""

    def __init__(self) -> None:
        self._rooms: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def enter(self, room: str, name: str) -> bool:
        """Add a name; return whether it is new."""
        self._rooms[room][name] += 1
        return self._rooms[room][name] == 1

    def leave(self, room: str, name: str) -> bool:
        """Remove a name; return whether its last window has left."""
        members = self._rooms[room]
        members[name] -= 1
        if members[name]:
            return False
        del members[name]
        if not members:
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

    def channel_of(self, info: ConnectionInfo) -> str:
        channel = super().channel_of(info)
        [name] = parse_qs(urlsplit(info.url).query).get("name", [""])
        if not channel.startswith("rooms/") or not 0 < len(name.strip()) <= 30:
            raise InvalidOption("a room and a name are required")
        self.name = name.strip()
        return channel

    def handle_connect(self, info: ConnectionInfo, state: Any) -> Any:
        if state is not None:
            info.connection.start_soon(self.enter, state.channel)
        return super().handle_connect(info, state)

    async def enter(self, room: str) -> None:
        is_new = self.presence.enter(room, self.name)
        await self.send(room, {"event": "joined" if is_new else "present", "name": self.name})

    async def handle_receive(self, frame: Any, state: Any) -> tuple[Any, Any]:
        if not isinstance(frame, str) or len(frame) > MAX_LENGTH:
            return Close(1008, f"a message must be text of at most {MAX_LENGTH} characters"), state
        message = {"event": "message", "name": self.name, "text": frame}
        return await self.publish(json.dumps(message), state.channel), state

    async def terminate(self, reason: Disconnect, state: Any) -> None:
        super().terminate(reason, state)
        if state is not None and self.presence.leave(state.channel, self.name):
            await self.send(state.channel, {"event": "left", "name": self.name})

    async def send(self, room: str, event: dict[str, object]) -> None:
        event["names"] = self.presence.names(room)
        await self.publish(json.dumps(event), room)


def serve_page(request: Request) -> Response | None:
    """Serve the page for every room; let WebSocket handshakes continue."""
    if "Upgrade" in request.headers:
        return None
    if request.path == "/" or unquote(request.path).startswith("/rooms/"):
        return Response(200, PAGE, HTML)
    return Response(404, "not found")


async def main(port: int) -> None:
    presence = Presence()
    hub = Hub(overflow="close")
    target = partial(Guest, hub, presence)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as stop:
        async with hub, serve(target, "127.0.0.1", port, process_request=serve_page) as server:
            print(f"open http://127.0.0.1:{server.port}/", flush=True)
            await anext(stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8030, help="0 for a free port")
    options = parser.parse_args()
    trio.run(main, options.port)
