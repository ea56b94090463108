"""The server: ``serve()``, and the targets that it runs on each connection."""

from .connections import (
    ConnectionHandler,
    ConnectionRegistry,
    ConnectionRunner,
    HandshakeTarget,
    ServeTarget,
)
from .serve import ServeOptions, serve, serve_forever
from .server import Server

__all__ = [
    "ConnectionHandler",
    "ConnectionRegistry",
    "ConnectionRunner",
    "HandshakeTarget",
    "ServeOptions",
    "ServeTarget",
    "Server",
    "serve",
    "serve_forever",
]
