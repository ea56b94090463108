"""``HubSocket``: the hooks that join a browser to a hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..disconnect import Disconnect
from ..errors import BrokerError, BrokerUnavailable, InvalidOption, UsageError
from ..frames import Close, Data
from ..hooks import ConnectionInfo, MaybeAwaitable, Socket
from .browser import Browser
from .history import Missed
from .message import EVERYONE, check_channel
from .queue import new_backlog

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["INCOMING", "HubSocket"]

INCOMING = "incoming"
"""The channel of what browsers send; no browser may listen to it."""


class HubSocket(Socket[Browser | None]):
    """A browser on a hub: the path is the channel, what it sends is published on ``incoming``.

    ``ws://.../news`` listens to ``news``, and to what is for everyone; ``ws://.../`` to the latter
    alone. A query ``?after=`` asks for messages in JSON, ``{"id": ..., "channel": ..., "data":
    ...}``, and for ``{"gap": seconds}`` where some may be missing; ``?after=<id>`` also for what
    came after that message, as far as the broker's history reaches.

    Override :meth:`channel_of` to listen to something else than the path, and ``handle_receive``
    to do something else with what comes.

    Args:
        hub: an open one.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub: Hub = hub

    def channel_of(self, stream: ConnectionInfo) -> str:
        """The channel that a browser listens to: by default the path, without its first slash.

        Args:
            stream: the browser's, as ``init_stream`` gets it.

        Raises:
            InvalidOption: it may not; the text goes to the browser with a Close 1008.
        """
        channel = check_channel(unquote(urlsplit(stream.url).path)[1:])
        if channel == INCOMING:
            raise InvalidOption(f"nobody may listen to {INCOMING!r}")
        return channel

    def init_stream(self, info: ConnectionInfo) -> Browser | None:
        """Enter the browser; None for one that :meth:`handle_connect` will refuse."""
        hub = self.hub
        try:
            channel = self.channel_of(info)
            after = parse_qs(urlsplit(info.url).query, keep_blank_values=True).get("after")
            browser = Browser(
                info.connection,
                channel,
                new_backlog(hub.max_queue, hub.overflow),
                hub.counters,
                hub.fanout,
                envelopes=after is not None,
            )
            if after is not None and after[-1]:
                concerns = frozenset((EVERYONE, channel)).__contains__
                browser.catch_up(self._missed(after[-1]), concerns, gaps=True)
            hub.join(browser, channel)
        except (InvalidOption, UsageError):
            return None
        browser.resume()
        return browser

    def _missed(self, after: str) -> Missed:
        try:
            return self.hub.history.after(after)
        except (InvalidOption, UsageError):
            return Missed((), complete=False)

    def handle_connect(
        self, info: ConnectionInfo, state: Browser | None
    ) -> MaybeAwaitable[tuple[Any, Browser | None]]:
        """Refuse a browser that may not listen to what it asked for."""
        if state is not None:
            return None, state
        try:
            self.channel_of(info)
        except InvalidOption as error:
            return Close(1008, _short(str(error))), None
        return Close(1013, "the hub is closed"), None

    async def handle_receive(
        self, frame: Data, state: Browser | None
    ) -> tuple[Any, Browser | None]:
        """Publish what the browser sends; see :meth:`publish`."""
        return await self.publish(frame, INCOMING), state

    async def publish(self, message: Data, channel: str) -> Close | None:
        """Publish for the browser.

        Args:
            message: text or binary.
            channel: where to.

        Returns:
            A result for a hook: None, or a Close 1013 if the broker is away for too long.
        """
        try:
            await self.hub.publish(message, channel)
        except (BrokerUnavailable, BrokerError, UsageError):
            return Close(1013, "not published, try again later")
        return None

    def terminate(self, reason: Disconnect, state: Browser | None) -> MaybeAwaitable[object]:  # noqa: ARG002 - a hook
        """Take the browser out."""
        if state is not None:
            self.hub.leave(state, state.channel)
        return None


def _short(text: str) -> str:
    """As much as fits in a Close frame (RFC 6455, section 5.5.1)."""
    return text.encode()[:123].decode(errors="ignore")
