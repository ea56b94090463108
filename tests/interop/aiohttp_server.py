"""A server on aiohttp; the path selects its behaviour.

Runs in a process of its own: prints its plain and its TLS port, ends when its stdin is closed.
It has no path for fragments: aiohttp always sends a message in one frame.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import defaultdict

from aiohttp import WSMsgType
from aiohttp.web import Application, AppRunner, Request, TCPSite, WebSocketResponse

SUBPROTOCOLS = ("chat.v1", "chat.v2")
MAX_SIZE = 2**21

closes: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)


async def accept(request: Request, *, autoping: bool = True) -> WebSocketResponse:
    socket = WebSocketResponse(protocols=SUBPROTOCOLS, max_msg_size=MAX_SIZE, autoping=autoping)
    await socket.prepare(request)
    return socket


async def echo(request: Request) -> WebSocketResponse:
    socket = await accept(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def close(request: Request) -> WebSocketResponse:
    socket = await accept(request)
    await socket.receive()
    await socket.close(code=int(request.query["code"]), message=request.query["reason"].encode())
    return socket


async def ping(request: Request) -> WebSocketResponse:
    socket = await accept(request, autoping=False)
    payload = request.query["payload"].encode()
    await socket.ping(payload)
    answer = await socket.receive()
    if answer.type is WSMsgType.PONG and answer.data == payload:
        await socket.send_str("ponged")
    await socket.receive()
    return socket


async def handshake(request: Request) -> WebSocketResponse:
    socket = await accept(request)
    seen = {
        "path": request.path_qs,
        "subprotocol": socket.ws_protocol,
        "origin": request.headers.get("Origin"),
        "question": request.headers.get("X-Question"),
    }
    await socket.send_str(json.dumps(seen))
    await socket.receive()
    return socket


async def push_close(request: Request) -> WebSocketResponse:
    socket = await accept(request)
    await socket.send_str("pushed")
    await socket.close()
    return socket


async def close_wait(request: Request) -> WebSocketResponse:
    socket = await accept(request)
    seen = await socket.receive()
    # The library reports 0 if the Close frame has no code.
    closes[request.query["id"]].put_nowait(f"{seen.data or 1005} {seen.extra}")
    return socket


async def last_close(request: Request) -> WebSocketResponse:
    socket = await accept(request)
    await socket.send_str(await closes[request.query["id"]].get())
    await socket.receive()
    return socket


PATHS = {
    "/echo": echo,
    "/close": close,
    "/ping": ping,
    "/subprotocol": handshake,
    "/pushclose": push_close,
    "/closewait": close_wait,
    "/lastclose": last_close,
}


async def main(certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    application = Application()
    for path, handler in PATHS.items():
        application.router.add_get(path, handler)
    runner = AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    for tls in (None, context):
        await TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    print(*(address[1] for address in runner.addresses), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
