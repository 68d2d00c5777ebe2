"""The metrics endpoint, scraped over a real connection."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from jidosystem.core.errors import InvalidConfig
from jidosystem.core.observability import Meters
from jidosystem.operations.metrics import MetricsServer, serve_metrics


@pytest.fixture
def meters() -> Meters:
    meters = Meters()
    meters.of("Counter").commits = 7
    return meters


def get(server: MetricsServer, path: str = "/metrics", accept: str = "*/*") -> tuple[int, str, str]:
    request = urllib.request.Request(server.url.removesuffix("/metrics") + path, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.fixture
def server(meters: Meters) -> object:
    server = serve_metrics(meters, port=0)
    yield server
    server.close()


def test_a_scrape_sees_the_counters_of_the_moment(server: MetricsServer, meters: Meters) -> None:
    for commits in (7, 8):
        meters.of("Counter").commits = commits
        status, kind, text = get(server)
        assert status == 200
        assert kind.startswith("text/plain")
        assert list(parse_prometheus(text))
        assert f'jido_commits_total{{agent_type="Counter"}} {commits}.0' in text


def test_openmetrics_is_spoken_with_those_who_ask_for_it(server: MetricsServer) -> None:
    _, kind, text = get(server, accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert list(parse_openmetrics(text))


def test_health_says_what_it_is_told(meters: Meters) -> None:
    well = True
    server = serve_metrics(meters, port=0, healthy=lambda: well)
    try:
        assert get(server, "/health")[::2] == (200, "ok\n")
        well = False
        assert get(server, "/health")[::2] == (503, "not healthy\n")
    finally:
        server.close()


def test_a_port_in_use_is_a_clear_error_and_leaves_nothing_behind(server: MetricsServer, meters: Meters) -> None:
    before = threading.active_count()
    with pytest.raises(InvalidConfig, match=rf"can't be served at 127\.0\.0\.1:{server.port}: .*in use") as refused:
        serve_metrics(meters, port=server.port)
    assert (refused.value.path, refused.value.value) == ("infrastructure.metrics_port", server.port)
    assert threading.active_count() == before
    assert get(server)[0] == 200


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99_999), ("127.0.0.1", -1), ("256.1.1.1", 0)])
def test_an_address_that_cannot_be_is_a_clear_error(meters: Meters, host: str, port: int) -> None:
    with pytest.raises(InvalidConfig, match="can't be served"):
        serve_metrics(meters, host=host, port=port)


def test_closing_frees_the_port_at_once_and_twice_is_no_error(meters: Meters) -> None:
    first = serve_metrics(meters, port=0)
    get(first)
    first.close()
    first.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first.port), timeout=10)
    again = serve_metrics(meters, port=first.port)
    assert get(again)[0] == 200
    again.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("jido-metrics")]


def test_clients_that_say_nothing_or_leave_disturb_nobody(server: MetricsServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(20)]
    for connection in silent[::2]:
        connection.close()
    assert get(server)[0] == 200
    for connection in silent[1::2]:
        connection.close()


def test_nonsense_is_answered_or_dropped_and_the_next_is_served(server: MetricsServer) -> None:
    for nonsense in (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"POST /metrics HTTP/1.0\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert get(server)[0] == 200


async def test_it_starts_and_closes_on_a_running_loop_and_is_scraped_beside_it(meters: Meters) -> None:
    server = serve_metrics(meters, port=0)
    assert (await asyncio.to_thread(get, server))[0] == 200
    await server.aclose()
