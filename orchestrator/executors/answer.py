"""Whether anything like Ray answers at an address, found out within seconds."""

from __future__ import annotations

import socket

CONNECT_S = 5.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER, _SETTINGS = 9, 4
"""Length of an HTTP/2 frame's header, and the frame type that its fourth byte holds."""
_NO_SETTINGS = bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])


def require_answer(address: str) -> None:
    """Raise OSError unless a gRPC server, as Ray's is, answers at 'host:port'.

    Ray itself would try for minutes where the port is taken by another program, and then end the
    process. gRPC speaks HTTP/2, in which both sides begin by sending their settings (RFC 9113,
    section 3.4). Names without a port, such as 'auto', pass; ValueError for a port that is none.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    if not port.isdigit():
        raise ValueError("give 'auto' or host:port")
    with socket.create_connection((host, int(port)), timeout=CONNECT_S) as connection:
        if not _speaks_http2(connection):
            raise OSError("the port is taken by a program that is not Ray")


def _speaks_http2(connection: socket.socket) -> bool:
    try:
        connection.sendall(_PREFACE + _NO_SETTINGS)
        header = connection.recv(_HEADER, socket.MSG_WAITALL)
    except OSError:  # silence until the time is over, or the connection closed
        return False
    return len(header) == _HEADER and header[3] == _SETTINGS
