"""A chat over Phoenix Channels with two users, presence and messages.

    python examples/phoenix_chat.py                               # starts a mock server
    python examples/phoenix_chat.py --url wss://example.org/socket

A real server needs a topic ``room:lobby`` that broadcasts ``new_msg`` and tracks names.
"""

from __future__ import annotations

import argparse
from typing import Any

import trio

from trioglock.protocols import phoenix
from trioglock.testing import MockPhoenixChannel, MockPhoenixServer

# The mock server.


class Lobby(MockPhoenixChannel):
    async def on_join(self, payload: Any) -> Any:
        self.name = payload["name"]
        return {"welcome": self.name}

    async def on_joined(self) -> None:
        await self.track(self.name)

    async def on_event(self, event: str, payload: Any) -> Any:
        if event != "new_msg":
            return "error", {"reason": f"no such event: {event}"}
        await self.broadcast(event, {"name": self.name, **payload})
        return "ok"


# The client.


async def user(
    url: str,
    name: str,
    texts: list[str],
    expected: int,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Join the lobby, send texts, receive the expected number of messages, leave."""
    presence = phoenix.Presence(on_join=lambda key, *_: print(f"{name} sees {key} come"))
    async with phoenix.connect(url, params={"client": "phoenix_chat"}) as socket:
        lobby = await socket.join("room:lobby", {"name": name}, presence=presence)
        print(f"{name} has joined: {lobby.response}")
        task_status.started()
        for text in texts:
            reply = await lobby.push("new_msg", {"text": text})
            assert reply.ok, reply
        async for event, payload in lobby:
            if event == "new_msg":
                print(f"{name} hears {payload['name']}: {payload['text']}")
                expected -= 1
            if not expected:
                break
        print(f"{name} leaves")
        await lobby.leave()


async def chat(url: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(user, url, "al", [], 2)
        nursery.start_soon(user, url, "bo", ["hello", "anyone there?"], 2)


async def main() -> None:
    parser = argparse.ArgumentParser(description="a chat over Phoenix Channels")
    parser.add_argument("--url", help="the URL of a socket; by default a mock server is started")
    url = parser.parse_args().url
    if url:
        await chat(url)
        return
    async with MockPhoenixServer({"room:*": Lobby}) as server:
        await chat(server.url)


if __name__ == "__main__":
    trio.run(main)
