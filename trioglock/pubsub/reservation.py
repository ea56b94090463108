"""Reservations of channels for clients whose opening handshake has not ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._text import seconds_text
from .._timer import PeerTimeout
from ..errors import BrokerUnavailable
from .history import EVERYTHING, MessageHistory
from .message import Event
from .patterns import ChannelFilter
from .subscribers import Subscriber

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["CONFIRM_SECONDS", "Reservation"]

CONFIRM_SECONDS = 5.0
"""Seconds for the broker to confirm the subscription of a client that connects. This is less than
the default ``open_timeout``."""


class Reservation:
    """Keeps a hub subscribed to a channel until :meth:`release`, or until it is garbage collected.

    Garbage collection releases the reservation if the handshake fails or is cancelled at any point.

    Args:
        hub: the hub.
        channel: name of the channel.

    Raises:
        UsageError: the hub is not open.
    """

    __slots__ = ("_hub", "_subscriber", "channel")

    def __init__(self, hub: Hub, channel: str) -> None:
        self.channel: str = channel
        self._hub = hub
        self._subscriber = IgnoringSubscriber()
        hub.join(self._subscriber, channel)

    async def confirm(self, history: MessageHistory | None = None) -> str | None:
        """Wait until the broker has confirmed the subscription; end the reservation if this fails.

        While the hub is disconnected from the broker, this fails immediately, so that clients do
        not wait unnecessarily.

        Args:
            history: the history of the hub, for clients that request all messages that are kept.

        Returns:
            The position before the oldest message in ``history``.

        Raises:
            BrokerUnavailable: the hub is disconnected from the broker, or the broker did not
                confirm the subscription in time.
            BrokerError: the broker returned an error.
            UsageError: the hub is closed.
        """
        confirmed, oldest = False, None
        try:
            if not self._hub._open_session().is_up:  # noqa: SLF001 - a part of the package
                raise BrokerUnavailable("the connection to the broker is interrupted")
            with PeerTimeout(CONFIRM_SECONDS):
                await self._hub.wait_subscribed(self.channel)
                if history is not None:
                    channels = ChannelFilter(self.channel, literal=True)
                    oldest = (await history.after(EVERYTHING, channels, 1)).start
                confirmed = True
        finally:
            if not confirmed:
                self.release()
        if not confirmed:
            raise BrokerUnavailable(
                "the broker did not confirm a subscription within " + seconds_text(CONFIRM_SECONDS)
            )
        return oldest

    def release(self) -> None:
        """End the reservation. Calling it again does nothing."""
        self._hub.leave(self._subscriber, self.channel)

    __del__ = release


class IgnoringSubscriber(Subscriber):
    """Ignores all messages, because its client is not connected yet."""

    def put(self, event: Event) -> None:
        pass

    def end(self) -> None:
        pass
