"""TLS on a socket without ``trio.SSLStream``, whose locks and scheduler passes cost more than TLS.

OpenSSL works on two memory buffers, and this module moves bytes between them and the descriptor.
One read takes all records that have arrived, with one system call; an ``ssl.SSLSocket`` would need
two for each record. Records are read and decrypted in buffers that all connections share, because
a large allocation per read would cost as much as decryption does.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeAlias

import trio

from .socket_io import NonblockingIO, open_fd

__all__ = ["END_OF_STREAM", "Certificate", "TLSSocketIO"]

RECORD = 2**14
"""Maximum size of the data in one record (RFC 8446, section 5.1)."""

READ = RECORD + 2**8
"""Size of a normal read of ciphertext in bytes: a full record with header, padding and tag."""

CHUNK = 2**16
"""Number of bytes that are encrypted before each write, or passed to OpenSSL in one piece."""

MANY = 4 * CHUNK
"""Size of a read of ciphertext in bytes while the peer sends continuously."""

MAX_RESPONSES = 2**18
"""Number of unsent bytes beyond which reading fails: a peer can cause responses, such as those to
key updates (RFC 8446, section 4.6.3), without reading them."""

RETRY = 0.01
"""Seconds between attempts to write in a renegotiation (TLS 1.2), which the reader completes."""

Certificate: TypeAlias = tuple[dict[str, Any] | None, bytes | None]
"""The certificate of a peer as ``ssl.SSLSocket.getpeercert()`` returns it, and in DER form."""

END_OF_STREAM = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""Exceptions of OpenSSL for an end of the stream, with and without ``close_notify``."""


class _Buffers(NamedTuple):
    cipher: memoryview
    plain: memoryview


# Buffers that are not in use. There are as many as threads have ever read at the same time.
_buffers: list[_Buffers] = []


@contextmanager
def _borrowed_buffers() -> Iterator[_Buffers]:
    try:
        buffers = _buffers.pop()
    except IndexError:
        buffers = _Buffers(memoryview(bytearray(MANY)), memoryview(bytearray(MANY)))
    try:
        yield buffers
    finally:
        _buffers.append(buffers)


class TLSSocketIO(NonblockingIO, trio.abc.HalfCloseableStream):
    """TLS on a socket. Call :meth:`do_handshake` first.

    A stream that ends without ``close_notify`` ends normally, as HTTPS and WebSockets expect.

    Args:
        stream: the open stream, which only this object uses.
        context: the settings.
        server_side: the role.
        server_hostname: the name for SNI and for checking the server's certificate.

    Raises:
        ssl.SSLError, ValueError: the settings do not fit the role or the name.
    """

    __slots__ = (
        "_encrypted",
        "_ended",
        "_error",
        "_incoming",
        "_many",
        "_outgoing",
        "_read",
        "_read_into",
        "_socket",
        "_ssl",
        "_unsent",
        "_write",
        "certificate",
        "pending",
        "transport_stream",
    )

    def __init__(
        self,
        stream: trio.SocketStream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.transport_stream: trio.SocketStream = stream
        self.pending: bool = False
        self.certificate: Certificate = None, None
        self._socket = stream.socket
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._read = self._ssl.read
        self._read_into: Callable[[int, memoryview], int] = self._ssl.read  # type: ignore[assignment]
        self._write = self._ssl.write
        self._many = False  # the last read filled its buffer
        self._ended = False
        self._unsent = b""  # ciphertext that the socket has not accepted yet
        self._encrypted = 0  # leading bytes of the next data to send that are already encrypted
        self._error: ssl.SSLError | None = None

    def fileno(self) -> int:
        return self._socket.fileno()

    async def do_handshake(self) -> None:
        """Do the TLS handshake, once. If it fails, an alert is sent to the peer.

        Raises:
            ssl.SSLError: the handshake failed, or the peer ended the stream.
            OSError, trio.ClosedResourceError: the stream broke.
        """
        while True:
            complete = True
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                complete = False
            except ssl.SSLError:
                self._try_flush()
                raise
            while not self._flush():
                await trio.lowlevel.wait_writable(open_fd(self._socket))
            if complete:
                # Data may have arrived with the peer's last message.
                self.pending = self._incoming.pending > 0
                self.certificate = self._ssl.getpeercert(), self._ssl.getpeercert(True)
                return
            await trio.lowlevel.wait_readable(open_fd(self._socket))
            self._fill(READ)

    # Reading.

    def _fill(self, size: int) -> bool:
        """Pass received ciphertext to OpenSSL; return False if there is none."""
        try:
            data = os.read(self._socket.fileno(), size)
        except BlockingIOError:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True

    def read_now(self, max_bytes: int) -> bytes | None:
        if self.pending or self._many or max_bytes < RECORD:
            return self._read_many(max_bytes)
        try:
            data = os.read(self._socket.fileno(), READ)
        except BlockingIOError:
            return None
        # Usually, this is exactly one record.
        incoming = self._incoming
        if data:
            incoming.write(data)
            self._many = len(data) == READ
        else:
            incoming.write_eof()
        self.pending = True
        data = b""
        try:
            data = self._read(RECORD)
        except ssl.SSLError as error:
            self._set_end(error)
        else:
            if not data:
                self._ended = True
            elif not incoming.pending:
                self.pending = False
            else:
                data += self._decrypt_rest()
        if self._outgoing.pending:
            self._respond()
        return data or self._get_end()

    def _read_many(self, max_bytes: int) -> bytes | None:
        """Read without waiting: pending bytes if there are any, else as many as possible."""
        if self._error is None and not self._ended:
            with _borrowed_buffers() as buffers:
                received = 0
                if not self.pending:
                    try:
                        received = os.readv(self._socket.fileno(), (buffers.cipher,))  # type: ignore[attr-defined, unused-ignore]
                    except BlockingIOError:
                        return None
                    if not received:
                        self._incoming.write_eof()
                    self._many = received >= READ
                limit = MANY if max_bytes >= CHUNK else max_bytes
                size = self._decrypt(buffers, received, limit)
                data = bytes(buffers.plain[:size])
            if self._outgoing.pending:
                self._respond()
            if data:
                return data
        return self._get_end()

    def _decrypt(self, buffers: _Buffers, received: int, limit: int) -> int:
        """Decrypt the bytes received now and earlier; return the size of the data."""
        # OpenSSL's buffer never shrinks, so the bytes are passed in parts.
        size = start = 0
        while start < received:
            end = min(start + CHUNK, received)
            self._incoming.write(buffers.cipher[start:end])
            size = self._decrypt_records(buffers.plain, size, limit)
            start = end
        return size if received else self._decrypt_records(buffers.plain, 0, limit)

    def _decrypt_rest(self) -> bytes:
        with _borrowed_buffers() as buffers:
            return bytes(buffers.plain[: self._decrypt_records(buffers.plain, 0, MANY)])

    def _decrypt_records(self, plain: memoryview, size: int, limit: int) -> int:
        """Decrypt complete records into ``plain``, starting at ``size``; return the new size."""
        read, incoming = self._read_into, self._incoming
        self.pending = True
        try:
            while size < limit:
                count = read(limit - size, plain[size:])
                if not count:
                    self._ended = True
                    break
                size += count
                if not incoming.pending and size < limit:
                    self.pending = False
                    break
        except ssl.SSLError as error:
            self._set_end(error)
        return size

    def _set_end(self, error: ssl.SSLError) -> None:
        """Store why no more data can be decrypted, temporarily or permanently."""
        if isinstance(error, ssl.SSLWantReadError):
            self.pending = False
        elif isinstance(error, END_OF_STREAM):
            self._ended = True
        else:
            self._error = error  # raised after the data before it has been returned

    def _get_end(self) -> bytes | None:
        if self._error is not None:
            raise self._error
        return b"" if self._ended else None

    def _respond(self) -> None:
        """Send data that reading has generated: an alert, or the response to a key update."""
        self._try_flush()
        if len(self._unsent) > MAX_RESPONSES:
            raise ConnectionAbortedError("the peer is not reading TLS responses")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            if self.pending:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(open_fd(self._socket))
            data = self.read_now(CHUNK if max_bytes is None else max_bytes)
            if data is not None:
                return data

    # Writing.

    def _flush(self) -> bool:
        """Write all ciphertext; return False if the socket does not accept it now."""
        data = self._unsent + self._outgoing.read() if self._unsent else self._outgoing.read()
        if not data:
            return True
        try:
            sent = os.write(self._socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        self._unsent = data[sent:]
        return sent == len(data)

    def _try_flush(self) -> None:
        with suppress(OSError):  # which the next write raises again
            self._flush()

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Write without waiting; return the number of bytes written.

        If some bytes remain, the next call must begin with them, as with OpenSSL: they may already
        be encrypted.
        """
        total = len(data)
        sent = self._encrypted
        if self._unsent and not self._flush():
            return 0
        self._encrypted = 0
        if sent > total:
            self._encrypted = sent - total
            return total
        while sent < total:
            start = sent
            try:
                if not start and total <= RECORD:
                    sent = self._write(data)
                else:
                    with memoryview(data) as view:
                        while sent < total and sent - start < CHUNK:
                            sent += self._write(view[sent : sent + RECORD])
            except ssl.SSLWantReadError:
                total = sent  # a renegotiation: the rest must wait
            if not self._flush():
                # The last byte counts as sent only when its whole record has been sent.
                written = start + max(0, sent - start - 1 - len(self._unsent))
                self._encrypted = sent - written
                return written
        return sent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self.send_now(data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            while sent < len(view):
                if not self._unsent:
                    await trio.sleep(RETRY)
                await trio.lowlevel.wait_writable(open_fd(self._socket))
                with view[sent:] as rest:
                    sent += self.send_now(rest)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(open_fd(self._socket))

    async def send_eof(self) -> None:
        """Send ``close_notify``; the peer may still send data."""
        with suppress(ssl.SSLError):  # usually because the peer has not answered yet
            self._ssl.unwrap()
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._flush():
            await trio.lowlevel.wait_writable(open_fd(self._socket))

    async def aclose(self) -> None:
        await self.transport_stream.aclose()
