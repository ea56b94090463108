"""The server: ``serve()``, and what it runs on each connection."""

from .connections import ConnectionHandler, ConnectionRegistry, ConnectionRunner, Target
from .serve import ServeOptions, serve, serve_forever
from .server import Server

__all__ = [
    "ConnectionHandler",
    "ConnectionRegistry",
    "ConnectionRunner",
    "ServeOptions",
    "Server",
    "Target",
    "serve",
    "serve_forever",
]
