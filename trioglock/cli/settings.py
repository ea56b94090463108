"""The settings of ``trioglock serve``, checked, and as arguments for another process."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import InvalidOption
from .live import check_token

__all__ = ["ECHO", "TOKEN_VARIABLE", "Settings"]

ECHO = "echo"
"""The target that needs no module."""

TOKEN_VARIABLE = "TRIOGLOCK_PUBLISH_TOKEN"  # noqa: S105 - where it is looked for
"""The environment variable of the publish token, for those who serve and those who publish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says.

    Args:
        target: ``echo`` or ``module:name``; None for a new Hub.
        host, port: where to listen.
        workers: processes.
        redis: URL of the Redis server of the new Hub; it may hold a password.
        name: of the new Hub.
        history: messages that Redis keeps for the new Hub.
        drain: seconds that connections have to end at shutdown.
        page: whether a hub has its page; None for the default, which the address decides.
        page_hosts: further names by which browsers reach the page.
        publish_token: what publishers have to show; None for nothing.
        ready_fd: in a worker process, where it says that it serves; else None.

    Raises:
        InvalidOption: they do not go together.
    """

    target: str | None = None
    host: str = "127.0.0.1"
    port: int = 8020
    workers: int = 1
    redis: str | None = field(default=None, repr=False)
    name: str = "trioglock"
    history: int | None = None
    drain: float = 30
    page: bool | None = None
    page_hosts: tuple[str, ...] = ()
    publish_token: str | None = field(default=None, repr=False)
    ready_fd: int | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidOption(f"--workers is at least 1, not {self.workers}")
        if self.workers > 1 and not self.redis and self.target is None:
            raise InvalidOption("a Hub with several workers needs --redis: they meet there")
        if self.target is not None and (self.redis or self.history):
            raise InvalidOption(
                "--redis and --history are for the new Hub: give them to your target"
            )
        if self.history and not self.redis:
            raise InvalidOption("--history needs --redis")
        check_token(self.publish_token)

    @property
    def is_worker(self) -> bool:
        """Whether this is one of several processes on one port."""
        return self.ready_fd is not None

    def to_arguments(self, port: int, ready_fd: int) -> list[str]:
        """The arguments of a worker; the token goes by the environment, where only we see it."""
        given = {
            "--host": self.host,
            "--port": port,
            "--workers": self.workers,
            "--redis": self.redis,
            "--name": self.name,
            "--history": self.history,
            "--drain": self.drain,
            "--ready-fd": ready_fd,
        }
        arguments = ["serve", *([self.target] if self.target else [])]
        for option, value in given.items():
            if value is not None:
                arguments += [option, str(value)]
        if self.page is not None:
            arguments.append("--page" if self.page else "--no-page")
        for host in self.page_hosts:
            arguments += ["--page-host", host]
        return arguments

    def to_environment(self) -> dict[str, str]:
        """What the environment of a worker has beside ours."""
        return {TOKEN_VARIABLE: self.publish_token or ""}
