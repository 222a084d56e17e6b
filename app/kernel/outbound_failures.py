"""Reasons why a webhook got no answer: a kind, and a sentence for people."""

from __future__ import annotations

import socket
import ssl

import httpcore

from app.domain.address import AddressRefused, UrlRefused
from app.domain.attempt import Kind

_NO_TLS_ERRORS = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


def judge(failure: BaseException) -> tuple[Kind, str]:
    """The kind of a failure before any status, and a sentence for people."""
    tls = _tls_error(failure)
    if tls is not None:
        reason = tls.verify_message if isinstance(tls, ssl.SSLCertVerificationError) else tls.reason
        return Kind.TLS, f"No trusted TLS connection: {reason or 'the handshake failed'}."
    match failure:
        case AddressRefused():
            return Kind.REFUSED_ADDRESS, str(failure)
        case UrlRefused():
            return Kind.REFUSED_URL, str(failure)
        case TimeoutError() | httpcore.TimeoutException():
            return Kind.TIMEOUT, "The receiver did not answer in time."
        case socket.gaierror():
            return Kind.UNRESOLVED, "The URL's host name has no address."
        case httpcore.ProtocolError():
            return (
                Kind.PROTOCOL,
                "The receiver closed the connection without an answer, or it does not speak HTTP.",
            )
        case _:
            return Kind.UNREACHABLE, "The receiver's host refused or dropped the connection."


def _tls_error(failure: BaseException) -> ssl.SSLError | None:
    """The TLS error behind `failure`: in its context, since httpcore's pool drops the stated cause.

    After a timeout or a lost connection during the handshake, ssl's "want read" or end of file is there,
    which says nothing about TLS.
    """
    cause: BaseException | None = failure
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__context__
    return None if isinstance(cause, _NO_TLS_ERRORS) else cause
