"""The server: ``serve()``, and what it runs on each connection."""

from .connections import ConnectionRegistry, ConnectionRunner, Handler, Target
from .serve import ServeOptions, serve, serve_forever
from .server import Server

__all__ = [
    "ConnectionRegistry",
    "ConnectionRunner",
    "Handler",
    "ServeOptions",
    "Server",
    "Target",
    "serve",
    "serve_forever",
]
