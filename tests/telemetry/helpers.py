"""Helpers of the telemetry tests: a listener that records events, and an OpenTelemetry SDK."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trioglock.telemetry import Event, listen
from trioglock.telemetry.opentelemetry import Instrumentation, instrument

__all__ = ["Collected", "Seen", "kinds", "recorded", "values"]

Seen = list[Event]


@contextmanager
def recorded(*kinds: type[Event]) -> Iterator[Seen]:
    """Record the events within the block."""
    seen: Seen = []
    with listen(seen.append, *kinds):
        yield seen


def kinds(seen: Seen) -> list[str]:
    """The names of the kinds of events."""
    return [type(event).__name__ for event in seen]


def values(event: Event) -> dict[str, Any]:
    """The fields of an event, except the connection."""
    names = [field.name for field in dataclasses.fields(event) if field.name != "connection"]
    return {name: getattr(event, name) for name in names}


class Collected:
    """What exporters would get."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])

    def instrument(self, **options: Any) -> Instrumentation:
        return instrument(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def metrics(self) -> dict[str, list[Any]]:
        """The points of each instrument."""
        return {metric.name: list(metric.data.data_points) for metric in self._metrics()}

    def units(self) -> dict[str, str | None]:
        """The unit of each instrument."""
        return {metric.name: metric.unit for metric in self._metrics()}

    def _metrics(self) -> list[Metric]:
        data = self._reader.get_metrics_data()
        return [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
