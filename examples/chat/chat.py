"""A chat in the browser: rooms, presence, "is typing", history, moderators, many processes.

    npm ci --prefix examples/chat        # once: installs phoenix.js, the client in the page
    python examples/chat/chat.py

Open the address that it prints in two browsers. With Redis, several processes are one chat:

    export REDIS_URL=redis://127.0.0.1:6379 MODERATOR_KEY=secret
    python examples/chat/chat.py --port 8030
    python examples/chat/chat.py --port 8031
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import secrets
import signal
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from trioglock import Request, Response, serve
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    Channels,
    ConnectRequest,
    JoinRefused,
    Presence,
)
from trioglock.pubsub import Hub, MemoryBroker, Message, RedisBroker

REDIS_URL = os.environ.get("REDIS_URL")
MODERATOR_KEY = os.environ.get("MODERATOR_KEY") or secrets.token_urlsafe(12)
SECONDS_REMOVED = 600
MAX_NAME, MAX_TEXT = 40, 4000


@dataclass(frozen=True)
class User:
    id: str
    name: str
    is_moderator: bool

    def meta(self, **status: bool) -> dict[str, Any]:
        return {"name": self.name, "is_moderator": self.is_moderator, **status}


def authenticate(request: ConnectRequest) -> User | None:
    """A browser keeps a random secret, so that nobody else can use its id, the secret's hash."""
    secret, _, key = (request.token or "").partition(" ")
    name = " ".join(request.params.get("name", "").split())
    if len(secret) < 32 or not 0 < len(name) <= MAX_NAME:
        return None
    user_id = hashlib.sha256(secret.encode()).hexdigest()[:16]
    return User(user_id, name, hmac.compare_digest(key.encode(), MODERATOR_KEY.encode()))


class Room(Channel[User]):
    """``room:<name>``. A person with several tabs is one key of the presence."""

    async def join(self, topic: str, payload: Any, user: User) -> Any:
        if removed_until.get(user.id, 0) > time.time():
            raise JoinRefused({"reason": "removed"})
        if not is_room(topic):
            raise JoinRefused({"reason": f"a room has a name of 1 to {MAX_NAME} characters"})
        await presence.track(self, user.id, user.meta(typing=False))
        response = {"id": user.id, "is_moderator": user.is_moderator, "now": time.time()}
        return {**response, "messages": list(recent[topic])}, user

    async def handle_in(self, event: str, payload: Any, user: User) -> Any:
        match event:
            case "message":
                return self.talk(payload["text"].strip(), payload["key"], user), user
            case "typing":
                await presence.update(self, user.id, user.meta(typing=bool(payload["typing"])))
                return None, user
            case "remove" if user.is_moderator:
                await hub.publish(payload["id"], "removed")
                await channels.disconnect(payload["id"])
                notice = {"name": payload["name"], "by": user.name}
                return (Broadcast("removed", notice), Answer("ok")), user
        return Answer("error", {"reason": "this is not allowed"}), user

    def talk(self, text: str, key: str, user: User) -> Any:
        if not 0 < len(text) <= MAX_TEXT:
            return Answer("error", {"reason": f"a message has 1 to {MAX_TEXT} characters"})
        author = {"id": user.id, "name": user.name}
        # The page of the author recognizes the message by its key.
        message = {"text": text, "from": author, "at": time.time(), "key": key}
        message["id"] = secrets.token_hex(8)
        recent[self.topic].append(message)
        return Broadcast("message", message), Answer("ok")


class Lobby(Channel[tuple[User, frozenset[str]]]):
    """``lobby`` shows which rooms are open: the keys of the presence are the rooms of each page."""

    async def join(self, topic: str, payload: Any, user: User) -> Any:
        _, state = await self.handle_in("rooms", payload, (user, frozenset()))
        return {}, state

    async def handle_in(self, event: str, payload: Any, state: Any) -> Any:
        user, before = state
        rooms = frozenset(filter(is_room, payload["rooms"]))
        for room in before - rooms:
            await presence.untrack(self, room)
        for room in rooms - before:
            await presence.track(self, room, {"id": user.id})
        return None, (user, rooms)


def is_room(topic: str) -> bool:
    name = topic.removeprefix("room:")
    return name != topic and name == name.strip() and 0 < len(name) <= MAX_NAME


hub = Hub("chat", RedisBroker(REDIS_URL) if REDIS_URL else MemoryBroker())
channels = Channels(
    {"room:*": Room, "lobby": Lobby}, hub=hub, connect=authenticate, id=lambda user: user.id
)
presence = Presence(channels)
removed_until: dict[str, float] = {}
recent: defaultdict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=100))


@hub.on("removed")
def forget(message: Message) -> None:
    """Every process refuses somebody whom a moderator has removed in one of them."""
    removed_until[str(message.data)] = time.time() + SECONDS_REMOVED


FOLDER = Path(__file__).parent
PHOENIX = "node_modules/phoenix/priv/static/phoenix.mjs"
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/phoenix.mjs": (PHOENIX, "text/javascript"),
}


def serve_page(request: Request) -> Response | None:
    """Serve the files of the page, and the page itself for each room; WebSockets continue."""
    if "Upgrade" in request.headers:
        return None
    name, content_type = FILES.get(request.path, FILES["/"])
    headers = {"Content-Type": content_type, "Content-Security-Policy": "default-src 'self'"}
    return Response(200, (FOLDER / name).read_bytes(), headers)


async def main(port: int) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            hub,
            serve(channels.socket, "127.0.0.1", port, process_request=serve_page) as server,
        ):
            url = f"http://127.0.0.1:{server.port}/"
            print(f"open {url}\nmoderators open {url}#moderator={MODERATOR_KEY}", flush=True)
            await anext(signals)


if __name__ == "__main__":
    if not (FOLDER / PHOENIX).exists():
        raise SystemExit("phoenix.js is missing; run: npm ci --prefix examples/chat")
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8030, help="0 for a free port")
    trio.run(main, parser.parse_args().port)
