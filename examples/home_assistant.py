"""Home Assistant's WebSocket API: events that survive a restart, and service calls.

Without arguments, the program uses a small imitation of Home Assistant, which restarts once.

    python examples/home_assistant.py
    python examples/home_assistant.py ws://homeassistant.local:8123/api/websocket TOKEN
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import trio

import trioglock
from trioglock import Connection, Gap, Reply, Socket, Subscriptions, connect, serve
from trioglock.codecs import JSON


class Login(Socket[None]):
    def __init__(self, token: str) -> None:
        self.auth = {"type": "auth", "access_token": token}

    def handle_receive(self, message: Any, state: None) -> tuple[Reply | None, None]:
        return Reply(self.auth) if message["type"] == "auth_required" else None, state


class Events(Subscriptions[str, Any]):
    """The keys are event types. A subscription is identified by the id of its request."""

    def __init__(self, ids: Iterator[int]) -> None:
        self.ids = ids
        self.keys: dict[int, str] = {}

    def reset(self) -> None:
        self.keys.clear()

    def is_ready(self, message: Any) -> bool:
        return bool(message["type"] == "auth_ok")

    def subscribe(self, keys: Sequence[str]) -> Iterator[Any]:
        for key in keys:
            self.keys[number := next(self.ids)] = key
            yield {"id": number, "type": "subscribe_events", "event_type": key}

    def unsubscribe(self, keys: Sequence[str]) -> Iterator[Any]:
        for number in [number for number, key in self.keys.items() if key in keys]:
            del self.keys[number]
            yield {"id": next(self.ids), "type": "unsubscribe_events", "subscription": number}

    def key_of(self, message: Any) -> str | None:
        return self.keys.get(message["id"]) if message["type"] == "event" else None

    def confirmed(self, message: Any) -> list[str]:
        return self.results(message, success=True)

    def refused(self, message: Any) -> list[str]:
        return self.results(message, success=False)

    def results(self, message: Any, *, success: bool) -> list[str]:
        matches = message["type"] == "result" and message["success"] is success
        return [self.keys[message["id"]]] if matches and message["id"] in self.keys else []


async def watch(url: str, token: str, services: Sequence[str] = ()) -> None:
    """Print changes of state while calling services; without services, until Ctrl-C."""
    ids = itertools.count(1)  # for requests and subscriptions
    form, feed = trioglock.RequestFormat(ids=ids), Events(ids)
    login, codec = Login(token), JSON()
    async with (
        connect(url, login, codec=codec, requests=form, subscriptions=feed, reconnect=True) as conn,
        conn.subscribe("state_changed") as events,
    ):
        for service in services or itertools.repeat(""):
            call = {"type": "call_service", "domain": "light", "service": service}
            with suppress(trioglock.RequestLost):  # a Gap follows
                await conn.request(call) if service else None
            event = await anext(events)
            if isinstance(event, Gap):
                print("connected again; changes may be missing")
                continue
            data = event["event"]["data"]
            print(data["entity_id"], "is", data["new_state"]["state"])


async def imitate(conn: Connection[None, Any]) -> None:
    subscription = 0
    await conn.send({"type": "auth_required"})
    async for request in conn:
        match request:
            case {"type": "auth"}:
                await conn.send({"type": "auth_ok"})
            case {"type": "subscribe_events", "id": subscription}:
                await conn.send({"id": subscription, "type": "result", "success": True})
            case {"service": "restart"}:
                await conn.aclose(1012)
            case {"service": str(service), "id": number}:
                await conn.send({"id": number, "type": "result", "success": True})
                data = {"entity_id": "light.kitchen", "new_state": {"state": service[5:]}}
                await conn.send({"id": subscription, "type": "event", "event": {"data": data}})


async def main() -> None:
    if sys.argv[2:]:
        await watch(sys.argv[1], sys.argv[2])
    async with serve(imitate, "127.0.0.1", 0, codec=JSON()) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        await watch(url, "token", ["turn_on", "restart", "turn_off"])


if __name__ == "__main__":
    trio.run(main)
