"""A server process with slow hooks: ``python -m tests.channels.attacked_server``."""

from __future__ import annotations

import time
from typing import Any

import trio

from trioglock import serve
from trioglock.channels import Answer, Channel, Channels, Credentials
from trioglock.pubsub import Hub


class Echo(Channel[None]):
    """Answers with the payload."""

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return Answer("ok", payload), state


class Hanging(Channel[None]):
    """Its hooks never return; ``join`` does, unless the payload says otherwise."""

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        if "hang" in payload:
            await trio.sleep_forever()
        return {}, None

    async def handle_in(self, event: str, payload: Any, state: None) -> Any:
        await trio.sleep_forever()

    async def terminate(self, reason: Any, state: None) -> Any:
        await trio.sleep(1)


async def refresh(token: str, user: str) -> Any:
    await trio.sleep(1)


async def main() -> None:
    hub = Hub()
    channels = Channels(
        {"echo:*": Echo, "hang:*": Hanging},
        hub=hub,
        connect=lambda request: Credentials("al", time.time() + 3600),
        refresh=refresh,
        id=lambda user: user,
    )
    async with hub, serve(channels.socket, "127.0.0.1", 0) as server:
        print(server.port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
