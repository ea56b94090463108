"""JSON-RPC by aiohttp, jsonrpcserver and jsonrpcclient.

Without arguments: a server, which prints its port and ends when its stdin is closed. With a URL: a
client, which prints what it receives.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import ClientSession, WSMsgType, web
from jsonrpcclient import notification_json, request, request_json
from jsonrpcserver import Error, Result, Success, async_dispatch, method


@method
async def subtract(minuend: int, subtrahend: int) -> Result:
    return Success(minuend - subtrahend)


@method
async def fail() -> Result:
    return Error(7, "no money", {"missing": 3})


async def serve(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT and (answer := await async_dispatch(message.data)):
            await socket.send_str(answer)
    return socket


async def run_server() -> None:
    application = web.Application()
    application.router.add_get("/", serve)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def run_client(url: str) -> None:
    async with ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_str(request_json("subtract", params=(42, 23), id=1))
        print(await socket.receive_json())
        await socket.send_str(notification_json("log", params={"text": "seen"}))
        await socket.send_json([request("absent", id="a"), request("subtract", (5, 3), id="b")])
        print(sorted(await socket.receive_json(), key=lambda response: response["id"]))


if __name__ == "__main__":
    asyncio.run(run_client(sys.argv[1]) if len(sys.argv) > 1 else run_server())
