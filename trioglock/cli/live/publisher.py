"""The publisher: the hooks of a program that publishes, such as ``trioglock publish``."""

from __future__ import annotations

import json

from ...frames import Data
from ...hooks import Reply, Socket
from .press import Press, read_publication, refusal

__all__ = ["PUBLISH", "Publisher"]

PUBLISH = "trioglock.publish"
"""The subprotocol."""


class Publisher(Socket[None]):
    """Takes publications, one in a frame, and answers each in turn.

    Args:
        press: publishes them.
    """

    def __init__(self, press: Press) -> None:
        self._press = press

    async def handle_receive(self, frame: Data, state: None) -> tuple[Reply, None]:
        """Publish; the answer."""
        publication = read_publication(frame)
        if publication is None:
            answer = refusal("a publication is a JSON object")
        else:
            answer = await self._press.publish(publication)
        return Reply(json.dumps(answer)), state
