"""socket.io on Node.js, with the same jobs as a channels server."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which

from ..dialects import SOCKET_IO
from ..job import Job
from .channels_hosting import TOPIC, ChannelsHost, ChannelsHosting
from .hosting import run_process

__all__ = ["CONTENDER"]

DIRECTORY = Path(__file__).parent.parent / "node"
SECONDS_TO_INSTALL = 120


class SocketIO(ChannelsHosting):
    """socket.io with its defaults, over WebSocket only."""

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[ChannelsHost]:
        async with run_process(("node", "--expose-gc", "server.js"), cwd=DIRECTORY) as ask:

            async def usage() -> float:
                answer = await ask({"name": "usage"})
                cpu: float = answer["cpu"]
                return cpu

            async def memory() -> int:
                answer = await ask({"name": "memory"})
                resident: int = answer["resident"]
                return resident

            async def broadcast(count: int) -> None:
                await ask({"name": "broadcast", "room": TOPIC, "size": job.size, "count": count})

            yield ChannelsHost(
                port=await ask(None),
                dialect=SOCKET_IO,
                usage=usage,
                memory=memory,
                broadcast=broadcast,
            )


def _install() -> None:
    """Install the locked packages, unless they are installed.

    Raises:
        ImportError: this is not possible.
    """
    npm = which("npm")
    if which("node") is None or npm is None:
        raise ImportError("there is no node or npm on this machine")
    if (DIRECTORY / "node_modules" / "socket.io").is_dir():
        return
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(
            install, cwd=DIRECTORY, timeout=SECONDS_TO_INSTALL, capture_output=True, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise ImportError(f"npm could not install socket.io: {error}") from error


_install()

CONTENDER = SocketIO()
