"""A stream whose peer stops reading, or disappears without closing."""

from __future__ import annotations

from typing import Any

import trio


class FaultyStream(trio.abc.Stream):
    """Wraps a stream. Set ``stuck`` to block sends, ``dead`` to lose data in both directions."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.stuck = False
        self.dead = False

    async def send_all(self, data: Any) -> None:
        if self.stuck:
            await trio.sleep_forever()
        if not self.dead:
            await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        received = await self.stream.receive_some(max_bytes)
        if self.dead:
            await trio.sleep_forever()
        return received

    async def aclose(self) -> None:
        await self.stream.aclose()
