"""`jido run --workers`: a cluster of real processes on this machine, which outlives the loss of any of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

JIDO = [sys.executable, "-m", "jidosystem"]
PROGRAM = """
from jidosystem import Agent, action


class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value
"""
PATIENCE_S = 60


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "counter.py").write_text(PROGRAM)
    return dict(os.environ) | {"XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [*JIDO, "run", "counter.py", "--workers", "2", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process
        if process.poll() is None:
            process.terminate()


def nodes(run: subprocess.Popen[str], count: int) -> dict[str, int]:
    """The pids of the next nodes that stand, by name."""
    assert run.stdout is not None
    said = [json.loads(run.stdout.readline()) for _ in range(count)]
    return {line["name"]: line["pid"] for line in said}


def until(what: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.05)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(180)
def test_the_nodes_are_one_system_and_a_killed_one_comes_back(run: subprocess.Popen[str], tmp_path: Path, environment: dict[str, str]) -> None:
    def add(node: str, key: str) -> int:
        command = [*JIDO, "call", f"Counter/{key}", "add", "--node", node, "--key", f"{key}-{counts[key]}"]
        answer = int(subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout)
        counts[key] += 1
        return answer

    counts = dict.fromkeys(["a", "b", "c", "d"], 0)
    pids = nodes(run, 2)
    assert set(pids) == {"counter-1", "counter-2"}
    for node in pids:
        for key in counts:
            assert add(node, key) == counts[key]
    os.kill(pids["counter-2"], signal.SIGKILL)
    for key in counts:
        assert add("counter-1", key) == counts[key]
    again = nodes(run, 1)
    assert set(again) == {"counter-2"}
    for key in counts:
        assert add("counter-2", key) == counts[key]
    run.send_signal(signal.SIGINT)
    assert run.wait(PATIENCE_S) == 130
    until(lambda: not any(map(is_there, (pids["counter-1"], again["counter-2"]))))


@pytest.mark.timeout(180)
def test_a_node_is_drained_by_another_and_ps_config_and_calls_are_the_same_on_both(
    run: subprocess.Popen[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    def jido(*words: str) -> Any:
        command = [*JIDO, *words, "--json"]
        told = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout
        return json.loads(told)

    def agents() -> dict[str, int]:
        return {node["name"]: node["agents"] for node in jido("cluster", "status")["nodes"]}  # of any node

    nodes(run, 2)
    for number in range(8):
        assert jido("call", f"Counter/k{number}", "add", "--node", "counter-1") == 1
    assert sum(agents().values()) == 8
    for node in ("counter-1", "counter-2"):
        listed = jido("ps", "--node", node)
        assert [(agent["key"], agent["state"]) for agent in listed["agents"]] == [(f"k{number}", "live") for number in range(8)]
        assert listed["totals"] == {"Counter": {"stored": 8, "live": 8}}
    jido("config", "set", "agents.default_timeout", "12", "--node", "counter-1")
    until(lambda: jido("config", "get", "agents.default_timeout", "--node", "counter-2") == 12)
    assert jido("cluster", "drain", "counter-2", "--node", "counter-1") == {"draining": "counter-2"}
    until(lambda: agents()["counter-2"] == 0)
    for number in range(8):
        assert jido("call", f"Counter/k{number}", "add", "--node", "counter-2") == 2
    assert agents() == {"counter-1": 8, "counter-2": 0}
    assert jido("cluster", "undrain", "counter-2", "--node", "counter-1") == {"undrained": "counter-2"}
    until(lambda: [jido("call", f"Counter/k{number}", "add", "--node", "counter-1") for number in range(8)] != [] and agents()["counter-2"] > 0)
    assert jido("cluster", "alerts", "--node", "counter-2") == {"alerts": []}
    assert jido("cluster", "alerts", "--clear", "node_down", "counter-9", "--node", "counter-2") == {"cleared": False}
    findings = jido("doctor")["findings"]
    (servers,) = [finding for finding in findings if finding["check"] == "cluster"]
    assert servers["level"] == "ok"


@pytest.mark.timeout(180)
def test_a_program_that_never_stands_ends_the_run(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "counter.py").write_text(PROGRAM + "\nraise RuntimeError('no')\n")
    ended = subprocess.run(
        [*JIDO, "run", "counter.py", "--workers", "2"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "RuntimeError: no" in ended.stderr
    assert "none of the nodes stays" in ended.stderr


POISON = """
import os
from pathlib import Path

from jidosystem import Agent, action


class Poison(Agent):
    @action
    async def drink(self) -> None:
        with Path("drunk").open("a") as file:
            file.write("x")
        os._exit(3)

    @action
    async def spare(self) -> int:
        return 1


class Feeder(Agent):
    fed: int = 0

    @action
    async def feed(self) -> None:
        self.cast(self.agent(Poison, "p").drink)
        self.fed += 1

    @action
    async def count(self) -> int:
        self.fed += 1
        return self.fed
"""


@pytest.mark.timeout(400)
def test_an_action_that_ends_its_process_is_stopped_after_a_few_nodes_and_the_others_go_on(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "poison.py").write_text(POISON)

    def jido(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*JIDO, *words, "--json"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def done(*words: str) -> bool:
        return jido(*words, "--node", "poison-1").returncode == 0

    def asked(*words: str) -> str:
        """What a node that is there says."""
        answers = [jido(*words, "--node", f"poison-{number}") for number in (1, 2, 3)]
        return "".join(answer.stdout + answer.stderr for answer in answers)

    with subprocess.Popen([*JIDO, "run", "poison.py", "--workers", "3"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as run:
        try:
            until(partial(done, "call", "Feeder/f", "feed"))
            until(lambda: "Poison/p" in asked("cluster", "alerts"), 3 * PATIENCE_S)
            assert "agent-failed" in asked("call", "Poison/p", "spare")
            assert len((tmp_path / "drunk").read_text()) == 3
            for key in range(10):
                until(partial(done, "call", f"Feeder/{key}", "count"))
            assert len((tmp_path / "drunk").read_text()) == 3
        finally:
            run.send_signal(signal.SIGINT)
            run.wait(PATIENCE_S)
