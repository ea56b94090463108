"""OpenTelemetry: spans and metrics of all connections; needs the extra ``opentelemetry``."""

from .instrument import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]
