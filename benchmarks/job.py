"""A job: one piece of work for one contender, as it travels to the contender's process."""

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
"""Messages of this size are binary, smaller ones text."""

DOCUMENTS = 256


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to do.

    Args:
        work: ``receive``, ``send``, ``echo``, ``burst``, ``crowd`` or ``idle``.
        way: which of a contender's ways of doing it; "" is the plain one.
        server: ``ws://`` or ``wss://``, host and port.
        cafile: of the certificate that signed the server's, for ``wss://``.
        size: bytes of payload.
        count: messages, over all connections.
        batch: messages that a burst brings.
        connections: how many at the same time.
        deflate: JSON documents of about 1 KiB, compressed.
        window: seconds to watch idle connections.
        traced: ask tracemalloc, too.
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
    window: float = 0
    traced: bool = False

    def url(self, *, end: bool = False) -> str:
        """The address; ``end`` asks the server to hang up after the last message."""
        count = self.batch if self.work == "burst" else self.count
        query = f"size={self.size}&count={count}&end={end:d}&deflate={self.deflate:d}"
        return f"{self.server}/{self.work}?{query}"

    @property
    def is_text(self) -> bool:
        """Whether the messages are ``str``."""
        return self.deflate or self.size < BINARY_FROM

    def messages(self) -> Iterator[str | bytes]:
        """The ``count`` messages to send."""
        if self.deflate:
            return itertools.islice(itertools.cycle(documents()), self.count)
        return itertools.repeat(self.message, self.count)

    @property
    def message(self) -> str | bytes:
        """The message to send, where it is always the same."""
        data = payload(self.size)
        return data.decode() if self.is_text else data

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The context for ``wss://``."""
        return _context(self.cafile) if self.cafile else None


@cache
def payload(size: int) -> bytes:
    """Printable ASCII of that length."""
    letters = (string.ascii_letters + string.digits).encode()
    return (letters * (size // len(letters) + 1))[:size]


@cache
def documents() -> tuple[str, ...]:
    """JSON of about 1 KiB each, alike but not the same."""
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
