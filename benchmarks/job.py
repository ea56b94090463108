"""A job for one contender, which is sent to the process of the contender as JSON."""

from __future__ import annotations

import itertools
import json
import ssl
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

__all__ = ["BINARY_FROM", "Job", "documents", "payload"]

BINARY_FROM = 2**20
"""Messages of at least this size, in bytes, are binary. Smaller ones are text."""

DOCUMENTS = 256


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a contender does.

    Args:
        work: ``receive``, ``send``, ``echo``, ``burst``, ``crowd`` (echo over many connections),
            ``request`` (requests with JSON), ``tasks`` (send from many tasks), ``idle``; for
            servers ``fanout``, ``serve`` or ``hold``; for servers of channels ``push``, ``shout``,
            ``join``, ``presence``, ``keep`` or ``rest``; for hubs ``ignore``, ``publish``,
            ``spread``, ``resume`` or ``scatter``.
        way: the variant of the contender; "" is the default.
        server: the URL of the server, without a path.
        cafile: the file of the CA certificate that a client must trust, for ``wss://``.
        size: the payload of a message in bytes.
        count: the number of messages over all connections, or in the history of a hub.
        batch: the number of messages in a burst, or of tasks that send at the same time; for hubs,
            that of messages per second, or those that each client has missed.
        connections: the number of simultaneous connections.
        deflate: send compressed JSON documents of about 1 KiB; for idle connections, negotiate
            compression.
        secure: as a server, use TLS.
        window: the seconds during which the CPU time of idle connections, or of hubs, is measured.
        traced: measure memory with tracemalloc as well.
    """

    work: str
    way: str = ""
    server: str = ""
    cafile: str = ""
    size: int = 64
    count: int = 1
    batch: int = 1
    connections: int = 1
    deflate: bool = False
    secure: bool = False
    window: float = 0
    traced: bool = False

    def url(self, *, end: bool = False) -> str:
        """Return the URL; with ``end`` the server closes the connection after the last message."""
        count = self.batch if self.work == "burst" else self.count
        query = f"size={self.size}&count={count}&end={end:d}&deflate={self.deflate:d}"
        return f"{self.server}/{self.work}?{query}"

    @property
    def is_text(self) -> bool:
        """Whether the messages are text."""
        return self.deflate or self.size < BINARY_FROM

    def messages(self) -> Iterator[str | bytes]:
        """Return an iterator over the ``count`` messages to send."""
        if self.deflate:
            return itertools.islice(itertools.cycle(documents()), self.count)
        return itertools.repeat(self.message, self.count)

    @property
    def message(self) -> str | bytes:
        """The message to send, if all are the same."""
        data = payload(self.size)
        return data.decode() if self.is_text else data

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context for ``wss://``."""
        return _context(self.cafile) if self.cafile else None


@cache
def payload(size: int) -> bytes:
    """Return printable ASCII of this length."""
    letters = (string.ascii_letters + string.digits).encode()
    return (letters * (size // len(letters) + 1))[:size]


@cache
def documents() -> tuple[str, ...]:
    """Return similar JSON documents of about 1 KiB each."""
    return tuple(_document(number) for number in range(DOCUMENTS))


def _document(number: int) -> str:
    orders = [
        {
            "id": number * 1009 + line,
            "symbol": f"{'ABCDEFGH'[line % 8]}{number % 97}",
            "side": "buy" if (number + line) % 3 else "sell",
            "price": round(100 + (number * 31 + line * 17) % 977 / 7, 2),
            "quantity": (number * 7 + line * 13) % 500,
        }
        for line in range(12)
    ]
    return json.dumps({"event": "order_book", "sequence": number, "orders": orders})


@cache
def _context(cafile: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=cafile)
