"""A server on the asyncio side of websockets; the path selects its behaviour.

Runs in a process of its own: prints its plain and its TLS port, ends when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

Query = dict[str, str]

SUBPROTOCOLS = {"chat.v1", "chat.v2"}
MAX_SIZE = 2**21

closes: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)


async def echo(socket: ServerConnection, query: Query) -> None:
    async for message in socket:
        await socket.send(message)


async def close(socket: ServerConnection, query: Query) -> None:
    await socket.recv()
    await socket.close(int(query["code"]), query["reason"])


async def fragments(socket: ServerConnection, query: Query) -> None:
    """The rest of the message is sent only once the ping after its beginning is answered."""
    whole, cut = query["message"].encode(), int(query["cut"])

    async def parts() -> AsyncIterator[bytes]:
        yield whole[:cut]
        await (await socket.ping(b"between"))
        yield whole[cut:]

    # The library ends such a message with an empty fragment: three in all.
    await socket.send(parts(), text=query["kind"] == "text")
    await socket.wait_closed()


async def ping(socket: ServerConnection, query: Query) -> None:
    await (await socket.ping(query["payload"].encode()))
    await socket.send("ponged")
    await socket.wait_closed()


async def handshake(socket: ServerConnection, query: Query) -> None:
    assert socket.request is not None
    headers = socket.request.headers
    seen = {
        "path": socket.request.path,
        "subprotocol": socket.subprotocol,
        "origin": headers.get("Origin"),
        "question": headers.get("X-Question"),
    }
    await socket.send(json.dumps(seen))
    await socket.wait_closed()


async def push_close(socket: ServerConnection, query: Query) -> None:
    await socket.send("pushed")
    await socket.close()


async def close_wait(socket: ServerConnection, query: Query) -> None:
    await socket.wait_closed()
    closes[query["id"]].put_nowait(f"{socket.close_code} {socket.close_reason}")


async def last_close(socket: ServerConnection, query: Query) -> None:
    await socket.send(await closes[query["id"]].get())
    await socket.wait_closed()


PATHS: dict[str, Callable[[ServerConnection, Query], Awaitable[None]]] = {
    "/echo": echo,
    "/close": close,
    "/fragments": fragments,
    "/ping": ping,
    "/subprotocol": handshake,
    "/pushclose": push_close,
    "/closewait": close_wait,
    "/lastclose": last_close,
}


async def handle(socket: ServerConnection) -> None:
    assert socket.request is not None
    url = urlsplit(socket.request.path)
    await PATHS[url.path](socket, dict(parse_qsl(url.query)))


def refuse_unknown(socket: ServerConnection, request: Request) -> Response | None:
    if urlsplit(request.path).path in PATHS:
        return None
    return socket.respond(HTTPStatus.NOT_FOUND, "no such path\n")


def select_subprotocol(
    socket: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    return next((name for name in offered if name in SUBPROTOCOLS), None)


async def main(certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ports = []
    for tls in (None, context):
        server = await serve(
            handle,
            "127.0.0.1",
            0,
            ssl=tls,
            process_request=refuse_unknown,
            select_subprotocol=select_subprotocol,
            max_size=MAX_SIZE,
        )
        ports.append(next(iter(server.sockets)).getsockname()[1])
    print(*ports, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
