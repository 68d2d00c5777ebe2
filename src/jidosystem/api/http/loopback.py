"""The socket that a node listens on: on this machine only. Apart from the server, so that who only holds the socket imports little."""

from __future__ import annotations

import ipaddress
import socket

from ...core.errors import InvalidConfig

DEFAULT_PORT = 7450


def listen(host: str = "127.0.0.1", port: int | None = None) -> socket.socket:
    """A listening socket on loopback. Without a port: 7450, or a free one if somebody has that."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        told = f"the HTTP API can't listen on {host}: until the security layer comes it is for this machine only. Use 127.0.0.1 or ::1"
        raise InvalidConfig(told, path="host", value=host, allowed="a loopback address")
    try:
        return _bound(host, DEFAULT_PORT if port is None else port)
    except (OSError, OverflowError) as error:
        if port is None:
            return _bound(host, 0)
        told = f"port {port} of {host} can't be had: {error}. Choose another, or 0 for any free one"
        raise InvalidConfig(told, path="port", value=port, allowed="a port that nobody listens at") from error


def url_of(listening: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(2048)
    except BaseException:
        bound.close()
        raise
    return bound
