"""The metrics endpoint: prometheus_client's own HTTP server, in a thread of its own.

A scrape is answered even when the event loop is blocked, which is when it is needed most. `/metrics` (and any other
path) answers in Prometheus' or OpenMetrics' text format, whichever is asked for; `/health` says that the process runs.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidConfig

if TYPE_CHECKING:
    from socketserver import TCPServer

    from ..core.observability import Meters

JOIN_S = 5.0
REQUEST_S = 10.0
"""How long a client may take to say what it wants."""


class MetricsServer:
    """A running endpoint. `close` and `aclose` end it and free the port before they return."""

    def __init__(self, server: TCPServer, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._server = server
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name=f"jido-metrics-{port}", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where to scrape."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop answering and wait for the end, a moment; requests under way are finished by threads of their own.

        Closing twice is no error. On an event loop use `aclose`.
        """
        self._wake.close()
        self._thread.join(JOIN_S)

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def _serve(self) -> None:
        # Not serve_forever: that notices its end half a second late, and its caller would have to wait for it.
        with self._server, self._woken, selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is not self._woken for key, _ in selector.select()):
                self._server.handle_request()


def serve_metrics(meters: Meters, host: str = "127.0.0.1", port: int = 9464, *, healthy: Callable[[], bool] | None = None) -> MetricsServer:
    """Serve a platform's metrics over HTTP until closed. `port=0`: any free one, see `MetricsServer.port`.

    `healthy` is asked by `/health` on the server's thread: 200 or 503. `InvalidConfig` if the address can't be had.
    """
    from socketserver import TCPServer
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    from prometheus_client import make_wsgi_app
    from prometheus_client.exposition import ThreadingWSGIServer

    class Quiet(WSGIRequestHandler):
        timeout = REQUEST_S

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            pass

    class Server(ThreadingWSGIServer):
        timeout = 0  # handle_request is called when something has arrived: a client that left again isn't waited for
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was silent for too long, or left in the middle

        def server_bind(self) -> None:
            TCPServer.server_bind(self)  # without the reverse look-up of the host's name, which may take seconds
            self.server_name, self.server_port = host, self.server_address[1]
            self.setup_environ()

    metrics = make_wsgi_app(meters.registry())

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/health":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        well = healthy is None or healthy()
        start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"ok\n" if well else b"not healthy\n"]

    try:
        server = make_server(host, port, app, Server, handler_class=Quiet)
    except (OSError, OverflowError) as error:
        raise InvalidConfig(
            f"infrastructure.metrics_port={port}: metrics can't be served at {host}:{port}: {error}; choose another port, or 0 for any free one",
            path="infrastructure.metrics_port",
            value=port,
            allowed="a port that nobody listens at",
        ) from error
    return MetricsServer(server, host, server.server_port)
