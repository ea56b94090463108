"""The settings of ``trioglock serve``, and how worker processes get them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import InvalidOption
from .live import check_token

__all__ = ["ECHO", "TOKEN_VARIABLE", "Settings"]

ECHO = "echo"
"""The built-in target."""

TOKEN_VARIABLE = "TRIOGLOCK_PUBLISH_TOKEN"  # noqa: S105 - a name
"""The environment variable with the publish token, for ``serve`` and ``publish``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of the command.

    Args:
        target: ``echo`` or ``module:name``; None for a new Hub.
        host: the address to listen on.
        port: the port to listen on; 0 for a free one.
        workers: the number of processes.
        redis: the URL of the new Hub's Redis server; it may contain a password.
        name: of the new Hub.
        history: the number of messages that Redis keeps for the new Hub.
        drain: seconds for connections to end at shutdown.
        page: whether a hub serves its page; None depends on the address.
        page_hosts: further host names of the page.
        publish_token: required from publishers; None requires none.
        ready_fd: the descriptor on which a worker process reports that it is ready.

    Raises:
        InvalidOption: the settings cannot be combined.
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
            raise InvalidOption(f"--workers must be at least 1, not {self.workers}")
        if self.workers > 1 and not self.redis and self.target is None:
            raise InvalidOption("a Hub with several workers needs --redis")
        if self.target is not None and (self.redis or self.history):
            raise InvalidOption(
                "--redis and --history apply to a new Hub only: configure your target instead"
            )
        if self.history and not self.redis:
            raise InvalidOption("--history needs --redis")
        check_token(self.publish_token)

    @property
    def is_worker(self) -> bool:
        """Whether this process is one of several on one port."""
        return self.ready_fd is not None

    def to_arguments(self, port: int, ready_fd: int) -> list[str]:
        """Return the arguments of a worker process, without the token."""
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
        """Return the additional environment of a worker process: the token, hidden from others."""
        return {TOKEN_VARIABLE: self.publish_token or ""}
