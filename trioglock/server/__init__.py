"""The server: ``serve()``, and the targets that it runs on each connection."""

from .connections import ConnectionHandler, ConnectionRegistry, ConnectionRunner, ServeTarget
from .serve import ServeOptions, serve, serve_forever
from .server import Server

__all__ = [
    "ConnectionHandler",
    "ConnectionRegistry",
    "ConnectionRunner",
    "ServeOptions",
    "ServeTarget",
    "Server",
    "serve",
    "serve_forever",
]
