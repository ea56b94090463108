"""A chat in the browser: rooms, presence, "is typing", history, moderators, many processes.

    npm ci --prefix examples/chat        # once: installs phoenix.js, the client in the page
    python examples/chat/chat.py

Open the address that it prints in two browsers. With Redis, several processes can serve one chat:

    export REDIS_URL=redis://127.0.0.1:6379 MODERATOR_KEY=secret
    PORT=8030 python examples/chat/chat.py
    PORT=8031 python examples/chat/chat.py
"""

from __future__ import annotations

import hashlib
import hmac
import mimetypes
import os
import secrets
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from trioglock import Rate, Request, Response, serve
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    Channels,
    ConnectRequest,
    History,
    JoinRefused,
    Presence,
)
from trioglock.pubsub import Hub, Message, RedisBroker

PORT = int(os.environ.get("PORT", "8030"))
REDIS_URL = os.environ.get("REDIS_URL")
MODERATOR_KEY = os.environ.get("MODERATOR_KEY") or secrets.token_urlsafe(12)
SECONDS_REMOVED, MAX_NAME, MAX_TEXT = 600, 40, 4000


@dataclass(frozen=True)
class User:
    id: str
    name: str
    is_moderator: bool

    def meta(self, **status: bool) -> dict[str, Any]:
        return {"name": self.name, "is_moderator": self.is_moderator, **status}


def authenticate(request: ConnectRequest) -> User | None:
    """A browser keeps a random secret. Its id is the secret's hash, so others cannot use it."""
    secret, _, key = (request.token or "").partition(" ")
    name = " ".join(request.params.get("name", "").split())
    if len(secret) < 32 or not 0 < len(name) <= MAX_NAME:
        return None
    user_id = hashlib.sha256(secret.encode()).hexdigest()[:16]
    return User(user_id, name, hmac.compare_digest(key.encode(), MODERATOR_KEY.encode()))


class Room(Channel[User]):
    """``room:<name>``. A person with several tabs is one key of the presence."""

    history = History(size=200, seconds=24 * 3600)

    async def join(self, topic: str, payload: Any, user: User) -> Any:
        if removed_until.get(user.id, 0) > time.time():
            raise JoinRefused({"reason": "removed"})
        if not is_room(topic):
            raise JoinRefused({"reason": f"a room has a name of 1 to {MAX_NAME} characters"})
        await presence.track(self, user.id, user.meta(typing=False))
        return {**user.meta(), "id": user.id, "now": time.time()}, user

    async def handle_in(self, event: str, payload: Any, user: User) -> Any:
        match event:
            case "message" if 0 < len(text := payload["text"].strip()) <= MAX_TEXT:
                message = {"from": {"id": user.id, "name": user.name}, "text": text}
                # The page of the author recognizes its message by the key.
                message |= {"at": time.time(), "key": payload["key"]}
                return (Broadcast("message", message), Answer("ok")), user
            case "typing":
                await presence.update(self, user.id, user.meta(typing=bool(payload["typing"])))
                return None, user
            case "remove" if user.is_moderator:
                await hub.publish(payload["id"], "removed")
                await channels.disconnect(payload["id"])
                notice = {"name": payload["name"], "by": user.name}
                return (Broadcast("removed", notice), Answer("ok")), user
        return Answer("error", {"reason": "this is not allowed"}), user


class Lobby(Channel[tuple[User, frozenset[str]]]):
    """``lobby`` shows which rooms are open: the keys of the presence are the rooms of each page."""

    async def join(self, topic: str, payload: Any, user: User) -> Any:
        return await self.handle_in("rooms", payload, (user, frozenset()))

    async def handle_in(self, event: str, payload: Any, state: Any) -> Any:
        user, before = state
        rooms = frozenset(filter(is_room, payload["rooms"]))
        for room in before - rooms:
            await presence.untrack(self, room)
        for room in rooms - before:
            await presence.track(self, room, {"id": user.id})
        return None, (user, rooms)


def is_room(topic: str) -> bool:
    kind, _, name = topic.partition(":")
    return kind == "room" and name == name.strip() and 0 < len(name) <= MAX_NAME


hub = Hub("chat", RedisBroker(REDIS_URL) if REDIS_URL else None)
channels = Channels(
    {"room:*": Room, "lobby": Lobby},
    hub=hub,
    connect=authenticate,
    id=lambda user: user.id,
    message_rate=Rate(200, per=10),
)
presence = Presence(channels)
removed_until: dict[str, float] = {}


@hub.on("removed")
def forget(message: Message) -> None:
    """If a moderator removes a user in one process, every process refuses that user."""
    removed_until[str(message.data)] = time.time() + SECONDS_REMOVED


FOLDER = Path(__file__).parent
PHOENIX = FOLDER / "node_modules/phoenix/priv/static/phoenix.mjs"
FILES = {f"/{path.name}": path for path in (*FOLDER.glob("page.*"), FOLDER / "icon.svg", PHOENIX)}


def serve_page(request: Request) -> Response | None:
    """Serve the files of the page, and the page itself for each room; WebSockets continue."""
    if "Upgrade" in request.headers:
        return None
    path = FILES.get(request.path, FOLDER / "page.html")
    content_type = mimetypes.guess_type(path)[0] or "text/javascript"
    headers = {"Content-Type": content_type, "Content-Security-Policy": "default-src 'self'"}
    return Response(200, path.read_bytes(), headers)


async def main() -> None:
    serving = serve(channels.socket, "127.0.0.1", PORT, process_request=serve_page)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with hub, serving as server:
            url = f"http://127.0.0.1:{server.port}/"
            print(f"open {url}\nmoderators open {url}#moderator={MODERATOR_KEY}", flush=True)
            await anext(signals)


if __name__ == "__main__":
    if not PHOENIX.exists():
        raise SystemExit("phoenix.js is missing; run: npm ci --prefix examples/chat")
    trio.run(main)
