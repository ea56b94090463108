"""One live connection: its actor, its queues, its tasks, and how it ends."""

from .closing import Status
from .connection import Connection
from .report import StatusReport
from .route import Route
from .scope import hold
from .session import Session
from .statistics import Statistics

__all__ = ["Connection", "Route", "Session", "Statistics", "Status", "StatusReport", "hold"]
