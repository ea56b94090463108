"""JSON-RPC by aiohttp, jsonrpcserver and jsonrpcclient.

Without arguments: a server, which prints its port and ends when its stdin is closed. With a URL: a
client, which prints what it receives.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from aiohttp import ClientSession, WSMsgType, web
from jsonrpcclient import notification_json, request, request_json
from jsonrpcserver import Error, Result, Success, async_dispatch, method


class Client:
    """The server's side of one connection, which also calls the client."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.response: asyncio.Future[Any] = asyncio.Future()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for message in self.socket:
                if message.type is WSMsgType.TEXT:
                    tasks.create_task(self.handle(message.data))

    async def handle(self, text: str) -> None:
        message = json.loads(text)
        if "result" in message:
            self.response.set_result(message["result"])
        elif answer := await async_dispatch(text, context=self):
            await self.socket.send_str(answer)


@method
async def subtract(_: Client, minuend: int, subtrahend: int) -> Result:
    return Success(minuend - subtrahend)


@method
async def fail(_: Client) -> Result:
    return Error(7, "no money", {"missing": 3})


@method
async def add(_: Client, *numbers: int) -> Result:
    return Success(sum(numbers))


@method
async def count_down(client: Client, start: int) -> Result:
    if start < 0:
        return Error(-32602, "start must not be negative", {"start": start})
    for number in range(start, 0, -1):
        await client.socket.send_str(notification_json("number", params=(number,)))
    await client.socket.send_str(request_json("name", id="name"))
    return Success(f"lift-off, {await client.response}!")


async def serve(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await Client(socket).run()
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
