"""TLS on any stream: directly on the socket if there is one, otherwise with ``trio.SSLStream``."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress

import trio

from .native.tls_io import END_OF_STREAM, Certificate, TLSSocketIO

__all__ = ["TLSSocketIO", "is_tls_failure", "peer_certificate", "wrap_tls"]


def wrap_tls(
    stream: trio.abc.Stream,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
) -> TLSSocketIO | trio.SSLStream[trio.abc.Stream]:
    """Prepare TLS on an open stream: directly on its socket, or else with ``trio.SSLStream``.

    Args:
        stream: the stream.
        context: the settings.
        server_side: the role.
        server_hostname: the name for SNI and for checking the server's certificate.

    Raises:
        ssl.SSLError, ValueError: the settings do not match the role or the name.
    """
    if os.name == "posix" and stream.__class__ is trio.SocketStream:
        return TLSSocketIO(
            stream, context, server_side=server_side, server_hostname=server_hostname
        )
    return trio.SSLStream(
        stream,
        context,
        server_side=server_side,
        server_hostname=server_hostname,
        https_compatible=True,
    )


def peer_certificate(stream: object) -> Certificate:
    """Return the certificate of the peer, decoded and in DER form; None if there is none.

    Args:
        stream: a stream, after the TLS handshake if it is encrypted.
    """
    if isinstance(stream, TLSSocketIO):
        return stream.certificate
    if isinstance(stream, trio.SSLStream):
        with suppress(ValueError):  # raised after a later failure of TLS
            return stream.getpeercert(), stream.getpeercert(True)
    return None, None


# Alerts that are not about the TLS handshake itself.
_NO_VERDICT = ("TLSV1_ALERT_INTERNAL_ERROR", "TLSV1_ALERT_USER_CANCELLED")


def is_tls_failure(error: BaseException | None) -> bool:
    """Whether TLS itself failed, and not the network or the peer.

    Args:
        error: the exception raised by the stream, or its cause.
    """
    if not isinstance(error, ssl.SSLError):
        return isinstance(error, ValueError)
    return (
        not isinstance(error, END_OF_STREAM) and getattr(error, "reason", None) not in _NO_VERDICT
    )
