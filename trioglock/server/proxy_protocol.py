"""The PROXY protocol: a header in which a proxy reports the client at the start of a connection.

Versions 1 and 2 of https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt are supported. No
bytes after the header are read, because TLS may follow.
"""

from __future__ import annotations

import re

import trio

from .client_address import ClientAddress, make_address

__all__ = ["InvalidProxyHeader", "read_proxy_header"]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""The beginning of version 2 (section 2.2)."""

MAX_LINE = 107
"""Maximum length of version 1 in bytes (section 2.1)."""

MAX_BLOCK = 4096
"""Maximum length of the addresses and the additional fields (TLV) of version 2 in bytes."""

_match_line = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n",
    re.DOTALL,
).fullmatch

_LOCAL, _PROXY = 0x20, 0x21  # version 2 and the command
_TCP4, _TCP6 = 0x11, 0x21
# The other families and protocols in section 2.2, for which the header is ignored.
_OTHERS = frozenset({0x00, 0x01, 0x02, 0x10, 0x20, 0x30, 0x12, 0x22, 0x31, 0x32})


class InvalidProxyHeader(Exception):
    """The header is missing or malformed; the connection must be dropped."""


async def read_proxy_header(stream: trio.abc.Stream) -> ClientAddress | None:
    """Read the header, in version 1 or 2.

    Args:
        stream: the stream of a proxy that has just connected.

    Returns:
        The address of the client; None if the proxy does not know it, or if the proxy itself is the
        client.

    Raises:
        InvalidProxyHeader: there is no valid header.
        EOFError: the stream ended before the header did; the message gives the number of bytes.
        trio.BrokenResourceError: the stream broke.
    """
    start = await _read(stream, len(SIGNATURE))
    try:
        if start == SIGNATURE:
            return await _read_block(stream)
        if start.startswith(b"PROXY "):
            return await _read_line(stream, start)
    except ValueError as error:
        raise InvalidProxyHeader(f"invalid PROXY protocol header: {error}") from None
    raise InvalidProxyHeader("no PROXY protocol header")


async def _read_line(stream: trio.abc.Stream, line: bytes) -> ClientAddress | None:
    while not line.endswith(b"\r\n"):
        if len(line) >= MAX_LINE:
            raise ValueError("the line is too long")
        line += await _read(stream, 1)
    match = _match_line(line)
    if match is None:
        raise ValueError("the line is malformed")
    family, *addresses = match.groups()
    if family is None:
        return None
    source, destination, port, destination_port = [part.decode() for part in addresses]
    if not (":" in source) == (":" in destination) == (family == b"6"):
        raise ValueError("the addresses do not match the family")
    make_address(destination, int(destination_port))
    return make_address(source, int(port))


async def _read_block(stream: trio.abc.Stream) -> ClientAddress | None:
    command, family, *size = await _read(stream, 4)
    length = int.from_bytes(size)
    if command not in (_LOCAL, _PROXY):
        raise ValueError("unknown version or command")
    if length > MAX_BLOCK:
        raise ValueError("the header is too large")
    block = await _read(stream, length)
    if command == _LOCAL:
        return None
    if family in (_TCP4, _TCP6):
        width = 4 if family == _TCP4 else 16
        if length < 2 * width + 4:
            raise ValueError("the addresses are incomplete")
        return make_address(block[:width], int.from_bytes(block[2 * width : 2 * width + 2]))
    if family not in _OTHERS:
        raise ValueError("unknown address family or protocol")
    return None


async def _read(stream: trio.abc.Stream, count: int) -> bytes:
    """Read exactly ``count`` bytes."""
    data = b""
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        if not part:
            raise EOFError(f"after {len(data)} bytes")
        data += part
    return data
