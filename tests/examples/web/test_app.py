"""The web example over real HTTP, in a process of its own that is killed without warning."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket that outlives the servers: who connects while there is none waits for the next one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@contextmanager
def server(listener: socket.socket, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "uvicorn", "examples.web.app:app", "--fd", str(listener.fileno()), "--log-level", "warning"]
    environ = {**os.environ, "VOTES_STORE": f"sqlite:///{folder}/votes.db", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environ, pass_fds=[listener.fileno()]) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def client_of(listener: socket.socket) -> httpx2.Client:
    return httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60)


def test_routes_call_agents_and_errors_have_their_status(listening: socket.socket, tmp_path: Path) -> None:
    with server(listening, tmp_path) as process, client_of(listening) as client:
        assert client.get("/polls/drinks").json() == {}
        answer = client.post("/polls/drinks/votes", json={"voter": "ann", "choice": "tea"})
        assert (answer.status_code, answer.json()) == (201, {"tea": 1})
        again = client.post("/polls/drinks/votes", json={"voter": "ann", "choice": "milk"})
        assert (again.status_code, again.json()["error"]) == (409, "rejected")
        assert client.post("/polls/drinks/votes", json={"voter": 1}).status_code == 422
        assert client.get("/polls/%07").status_code == 404
        assert client.post("/polls/drinks/close").json() == {"tea": 1}
        late = client.post("/polls/drinks/votes", json={"voter": "bob", "choice": "tea"})
        assert (late.status_code, late.json()["message"]) == (409, "the poll is closed")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    assert not (tmp_path / "votes.db-wal").exists(), "a platform that is closed leaves no log beside its file"


def test_a_voter_who_repeats_until_answered_is_counted_once_whatever_is_killed(listening: socket.socket, tmp_path: Path) -> None:
    answered: list[str] = []
    repeated: list[str] = []
    enough, stop = threading.Event(), threading.Event()

    def vote(voter: str) -> bool:
        with client_of(listening) as client:
            try:
                answer = client.post("/polls/drinks/votes", json={"voter": voter, "choice": "tea"}, headers={"Idempotency-Key": voter})
            except httpx2.TransportError:
                return False
        return answer.status_code == 201

    def crowd() -> None:
        while not stop.is_set():
            voter = f"voter-{len(answered)}"
            while not vote(voter):
                repeated.append(voter)
            answered.append(voter)
            if len(answered) % 20 == 0:
                enough.set()

    voting = threading.Thread(target=crowd)
    voting.start()
    try:
        for _ in range(2):
            with server(listening, tmp_path) as process:
                enough.clear()
                assert enough.wait(60)
                process.kill()
                process.wait()
        with server(listening, tmp_path), client_of(listening) as client:
            stop.set()
            voting.join(60)
            assert len(answered) >= 40
            assert client.get("/polls/drinks").json() == {"tea": len(answered)}
            assert all(vote(voter) for voter in (answered[0], answered[-1]))
            assert client.get("/polls/drinks").json() == {"tea": len(answered)}
    finally:
        stop.set()
