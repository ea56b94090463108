"""``instrument()``: from the events of all connections to spans and metrics."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from opentelemetry import metrics, trace

from ..._version import __version__
from ..listeners import listen
from .metrics import Metrics
from .spans import Spans

__all__ = ["Instrumentation", "instrument"]

_NAME = "trioglock"


class Instrumentation:
    """What :func:`instrument` has begun; :meth:`stop`, or the end of a ``with`` block, ends it."""

    def __init__(self, spans: Spans, metrics: Metrics) -> None:
        self._spans = spans
        self._metrics = metrics
        self._listening = [listen(spans, *spans.kinds), listen(metrics, *metrics.kinds)]

    def stop(self) -> None:
        """Make no more spans and measurements; those that are under way end now.

        What is open is counted as open no longer.
        """
        for listening in self._listening:
            listening.stop()
        self._spans.end_all()
        self._metrics.forget_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    frames: bool = False,
) -> Instrumentation:
    """Make spans and metrics of all connections of this process, clients and servers.

    Once, at the start of a program; or as a context manager. Names and attributes are those of
    the OpenTelemetry semantic conventions where these have any. Addresses come without user,
    password and the values of the query.

    Args:
        tracer_provider: of the spans; by default the global one.
        meter_provider: of the metrics; by default the global one.
        frames: count messages and bytes as well, which costs some microseconds for each.

    Returns:
        What :meth:`Instrumentation.stop` ends.
    """
    tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
    meter = metrics.get_meter(_NAME, __version__, meter_provider)
    return Instrumentation(Spans(tracer), Metrics(meter, frames=frames))
