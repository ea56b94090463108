"""The figures: what came out, as plain values, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .histogram import Bucket, Histogram
from .load import Load
from .meter import Fault

__all__ = ["Figures", "Times"]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in seconds: ``min``, ``mean``, quantiles and ``max``."""

    seconds: dict[str, float]
    buckets: tuple[Bucket, ...]

    @staticmethod
    def of(histogram: Histogram) -> Times | None:
        """The times in a histogram; None if it is empty."""
        if not histogram.count:
            return None
        quantiles = {name: histogram.quantile(share) for name, share in QUANTILES.items()}
        found = {"min": histogram.least, "mean": histogram.mean, **quantiles, "max": histogram.most}
        seconds = {name: nanoseconds / 1e9 for name, nanoseconds in found.items()}
        return Times(seconds, tuple(histogram.buckets()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured.

    Args:
        url: as it may be shown.
        connections: that were asked for.
        opened: that came about.
        size, binary, in_flight, compressed: of the plan.
        seconds: that it lasted.
        messages: echoes in that time.
        sent: messages that left in that time.
        load: the share of a core that the measuring process took.
        latency: of an echo; None if none came.
        connect: of an opening handshake; None if none succeeded.
        faults: what went wrong.
        interrupted: whether somebody ended it early.
    """

    url: str
    connections: int
    opened: int
    size: int
    binary: bool
    in_flight: int
    compressed: bool
    seconds: float
    messages: int
    sent: int
    load: float
    latency: Times | None
    connect: Times | None
    faults: tuple[Fault, ...]
    interrupted: bool

    @staticmethod
    def of(load: Load, url: str) -> Figures:
        """The figures of a load that has ended; ``url`` as it may be shown."""
        plan, meter = load.plan, load.meter
        return Figures(
            url=url,
            connections=plan.connections,
            opened=load.opened,
            size=plan.size,
            binary=plan.binary,
            in_flight=plan.in_flight,
            compressed=plan.compressed,
            seconds=meter.seconds,
            messages=meter.latencies.count,
            sent=meter.sent,
            load=meter.load,
            latency=Times.of(meter.latencies),
            connect=Times.of(meter.connects),
            faults=meter.faults,
            interrupted=load.interrupted,
        )

    @property
    def messages_per_second(self) -> float:
        """Echoes."""
        return self._per_second(self.messages)

    @property
    def bytes_sent_per_second(self) -> float:
        """Payload, before compression."""
        return self._per_second(self.sent * self.size)

    @property
    def bytes_received_per_second(self) -> float:
        """Payload, after inflation."""
        return self._per_second(self.messages * self.size)

    def _per_second(self, amount: float) -> float:
        return amount / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """One object; times in seconds, sizes in bytes."""
        plain = ("url", "connections", "opened", "size", "binary", "in_flight", "compressed")
        return {
            **{name: getattr(self, name) for name in plain},
            "seconds": self.seconds,
            "messages": self.messages,
            "messages_per_second": self.messages_per_second,
            "bytes_sent_per_second": self.bytes_sent_per_second,
            "bytes_received_per_second": self.bytes_received_per_second,
            "latency_seconds": self.latency and self.latency.seconds,
            "connect_seconds": self.connect and self.connect.seconds,
            "client_load": self.load,
            "errors": [asdict(fault) for fault in self.faults],
            "interrupted": self.interrupted,
        }
