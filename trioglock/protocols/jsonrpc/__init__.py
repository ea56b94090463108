"""JSON-RPC 2.0: requests, notifications and batches in both directions of one connection.

The specification is at https://www.jsonrpc.org/specification.
"""

from .batch import Batch, BatchResult
from .errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    TOO_MANY_REQUESTS,
    RPCError,
)
from .messages import Notification, Parameters
from .peer import Peer

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "TOO_MANY_REQUESTS",
    "Batch",
    "BatchResult",
    "Notification",
    "Parameters",
    "Peer",
    "RPCError",
]
