"""OpenTelemetry: spans and metrics of all connections; needs the extra ``opentelemetry``."""

try:
    from .instrument import Instrumentation, instrument
except ModuleNotFoundError as error:
    raise ImportError("it needs the extra: pip install 'trioglock[opentelemetry]'") from error

__all__ = ["Instrumentation", "instrument"]
