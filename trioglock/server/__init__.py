"""The server: ``serve()``, and the targets that it runs on each connection."""

from .connections import ConnectionRegistry, ConnectionRunner
from .routes import ConnectionHandler, HandshakeTarget, Route, Routes, ServeTarget, ServeTargets
from .serve import ServeOptions, serve, serve_forever
from .server import Server

__all__ = [
    "ConnectionHandler",
    "ConnectionRegistry",
    "ConnectionRunner",
    "HandshakeTarget",
    "Route",
    "Routes",
    "ServeOptions",
    "ServeTarget",
    "ServeTargets",
    "Server",
    "serve",
    "serve_forever",
]
