"""OpenTelemetry: spans and metrics of all connections; needs the extra ``opentelemetry``."""

try:
    from .instrument import Instrumentation, instrument
except ModuleNotFoundError:
    raise ImportError("it needs the extra: pip install 'trioglock[opentelemetry]'") from None

__all__ = ["Instrumentation", "instrument"]
