"""What the mock network sends: events of its own, and answers."""

from __future__ import annotations

import json
import uuid
from typing import Any

import trio
from trio_websocket import ConnectionClosed

from ..server import MockPeer

__all__ = ["Wire"]


class Wire:
    """The sending half of a client's connection.

    Args:
        peer: the connection.
    """

    def __init__(self, peer: MockPeer) -> None:
        self.peer: MockPeer = peer
        """The connection beneath: frames, headers, the client's Close frame."""

    async def send(self, event: str, payload: dict[str, Any] | None = None) -> None:
        """Send an event of the server's own.

        Args:
            event: its name.
            payload: None for none.
        """
        message = {"event": event, "ref": str(uuid.uuid4())}
        await self.send_message(message if payload is None else {**message, "payload": payload})

    async def send_message(self, message: object) -> None:
        """Send whatever JSON can say; nothing happens if the client has gone.

        Args:
            message: as it goes through the encoder.
        """
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        """Send a text frame as it is; nothing happens if the client has gone.

        Args:
            text: of the frame.
        """
        try:
            await self.peer.send(text)
        except ConnectionClosed:
            await trio.lowlevel.checkpoint()

    async def close(self, code: int, reason: str = "goodbye") -> None:
        """Close the connection.

        Args:
            code: of the Close frame.
            reason: its text.
        """
        await self.peer.close(code, reason)

    async def answer(
        self,
        event: dict[str, Any],
        payload: dict[str, Any] | None = None,
        *,
        error: str | None = None,
        status: bool = True,
    ) -> None:
        """Answer a client's event with the same ``event`` and ``ref``; without a ref, nothing.

        Args:
            event: the client's.
            payload: of the answer.
            error: what went wrong; "" for a failure without a text, None for a success.
            status: whether the answer says so at all.
        """
        if "ref" not in event:
            return
        message: dict[str, Any] = {"event": event["event"], "ref": event["ref"]}
        if status:
            message["status"] = "success" if error is None else "failure"
        if error:
            message["error"] = error
        if payload is not None:
            message["payload"] = payload
        await self.send_message(message)
