"""The commands that ask a running node: what they print, and how they say that they can't."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jidosystem.cli import node
from jidosystem.cli.app import COMMANDS
from jidosystem.cli.call import typed
from jidosystem.cli.describe import distance
from jidosystem.cli.output import FAILED, NO_NODE, OK, USAGE
from tests.cli.conftest import TOKEN, Counter, Jido, NodeThread

NO_NODES_FILES = (
    b"", b"{", b"[]", b"null", b'{"name": 1}', b"\xff", b"[" * 100_000, b'{"name":"x","url":5,"pid":"1","program":"","token":""}',
)  # fmt: skip
NO_NODES_ANSWERS = (
    b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
)  # fmt: skip
KEYS = itertools.count()
ASKING = [
    ("call", "Counter/a", "add"), ("ps",), ("describe", "Counter"), ("events", "list"), ("events", "tail"), ("events", "replay", "s"),
    ("events", "dead-letters", "list"), ("events", "dead-letters", "redrive", "x"), ("events", "dead-letters", "clear"),
    ("config", "get"), ("config", "set", "agents.max_live", "5"), ("config", "history"), ("config", "rollback", "0"),
]  # fmt: skip


@pytest.fixture
def fresh() -> str:
    """An agent that nobody has called."""
    return f"Counter/{next(KEYS)}"


# -- call ------------------------------------------------------------------------------------------------------------


def test_an_action_is_called_with_arguments_in_every_way(jido: Jido, running: NodeThread, fresh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jido("call", fresh, "add").out == "1\n"
    assert jido("call", fresh, "add", "amount=2").out == "3\n"
    assert jido("call", fresh, "add", "--args", '{"amount": 4}').out == "7\n"
    assert jido("call", fresh, "add", "amount=-7", "--json").out == "0\n"
    assert jido("call", fresh, "name", "label=5", "loud=true").out == "5\n"
    assert jido("call", fresh, "name", "label=a=b c", "tags=[]", "--json").out == '"a=b c"\n'
    assert jido("call", fresh, "echo", 'value=["1"]').code == FAILED
    assert json.loads(jido("call", fresh, "echo", "value=[1, 2]").out) == [1, 2]
    assert jido("call", fresh, "echo", "value=[1").out == "[1\n"
    assert jido("call", fresh, "echo").out == ""
    read, write = os.pipe()
    os.write(write, b'{"amount": 10}')
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert jido("call", fresh, "add", "-").out == "10\n"


def test_a_key_makes_a_repetition_take_effect_once(jido: Jido, running: NodeThread, fresh: str) -> None:
    assert [jido("call", fresh, "add", "--key", "k").out for _ in range(2)] == ["1\n", "1\n"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("Counter", "add"), USAGE, "type/key"),
        (("/a", "add"), USAGE, "type/key"),
        (("Counter/", "add"), USAGE, "type/key"),
        (("Counter/a", "ad"), USAGE, "did you mean 'add'"),
        (("Conter/a", "add"), FAILED, "did you mean 'Counter'"),
        (("Counter/a", "add", "amont=1"), USAGE, "did you mean 'amount'"),
        (("Counter/a", "add", "2"), USAGE, "name=value"),
        (("Counter/a", "add", "=2"), USAGE, "name=value"),
        (("Counter/a", "add", "amount=1", "amount=2"), USAGE, "twice"),
        (("Counter/a", "add", "amount=two"), FAILED, "invalid-arguments"),
        (("Counter/a", "add", "amount=NaN"), FAILED, "invalid-arguments"),
        (("Counter/a", "add", "amount=" + "9" * 5000), FAILED, "invalid-arguments"),
        (("Counter/a", "add", "amount=" + "[" * 50_000), FAILED, "invalid-arguments"),
        (("Counter/a", "add", "--args", "{"), USAGE, "no JSON"),
        (("Counter/a", "add", "--args", "[" * 50_000), USAGE, "no JSON"),
        (("Counter/a", "add", "--args", "[]"), USAGE, "JSON object"),
        (("Counter/a", "add", "--timeout", "-1"), USAGE, "0 or more"),
        (("Counter/a", "add", "--timeout", "nan"), USAGE, "0 or more"),
        (("Counter/a", "add", "--timeout", "soon"), USAGE, "--timeout"),
        (("Counter/a", "add", "--key", ""), FAILED, "idempotency_key"),
        (("Counter/a", "add", "--key", "a\nb"), USAGE, "can't be sent"),
        (("Counter/a", "add", "--key", "\u20ac"), USAGE, "can't be sent"),
        (("Counter/a\x00", "add"), FAILED, "control characters"),
        (("Counter/\udcff", "add"), USAGE, "Unicode"),
        (("Counter/a", "name", "label=\udcff"), FAILED, "invalid-arguments"),
        (("Counter/a", "refuse"), FAILED, "not_today\n  wanted=7\n"),
        (("Counter/a", "fail"), FAILED, "ValueError: a mistake"),
        (("Counter/slow", "wait", "--timeout", "0.05"), FAILED, "call-timeout"),
        (("Counter/a",), USAGE, "missing argument"),
        ((), USAGE, "missing argument"),
        (("Counter/a", "add", "--amount", "2"), USAGE, "no such option"),
    ],
)
def test_what_can_not_be_called_is_one_clear_error(jido: Jido, running: NodeThread, arguments: tuple[str, ...], code: int, told: str) -> None:
    ran = jido("call", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err
    assert "Traceback" not in ran.err
    as_json = jido("call", *arguments, "--json")
    assert as_json.code == code
    assert json.loads(as_json.err)["error"]["code"]


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "integer"}, 5), ("5", {"type": "string"}, "5"), ('"5"', {"type": "string"}, '"5"'), ("5", {"type": "number"}, 5),
        ("x", {"type": "integer"}, "x"), ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, None), ("5", {}, 5), ("x", {}, "x"),
        ("5", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "5"), ("a", {"enum": ["a", "b"]}, "a"), ("1", {"enum": [1, 2]}, 1),
        ("1.5", {"type": ["integer", "string"]}, "1.5"), ("", {"type": "string"}, ""),
        ('{"x": 1}', {"$ref": "#/$defs/P", "$defs": {"P": {"type": "object"}}}, {"x": 1}),
        ("Infinity", {"type": "number"}, "Infinity"), ("true", {"type": "boolean"}, True), ("true", {"type": "string"}, "true"),
    ],
)  # fmt: skip
def test_a_value_is_json_where_its_parameter_wants_it(text: str, schema: dict[str, Any], value: Any) -> None:
    assert typed(text, schema) == value
    assert type(typed(text, schema)) is type(value)


# -- looking and changing --------------------------------------------------------------------------------------------


def test_agents_are_listed_and_described(jido: Jido, running: NodeThread, fresh: str) -> None:
    jido("call", fresh, "add", "amount=3")
    listed = jido("ps", "--limit", "1000")
    assert fresh in listed.out
    assert "Counter: " in listed.out
    page = json.loads(jido("ps", "--json", "--limit", "1", "--type", "Counter").out)
    assert len(page["agents"]) == 1
    assert page["totals"]["Counter"]["live"] >= 1
    assert "unknown" not in jido("ps", "--state", "live").err
    assert ".value = 3" in jido("describe", fresh).out
    kind = jido("describe", "Counter").out
    assert "add(amount: int = 1) -> int  # Add to the value." in kind
    assert json.loads(jido("describe", "Counter", "--json").out)["name"] == "Counter"


@pytest.mark.parametrize("passive", [False, True])
def test_an_agent_is_described_with_when_its_reminders_are_due(
    jido: Jido, running: NodeThread, fresh: str, passive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jido("call", fresh, "later", "days=3").code == OK
    if passive:
        stopping = running.platform.agents.stop(running.platform.agent(Counter, fresh.partition("/")[2]))
        asyncio.run_coroutine_threadsafe(stopping, running.loop).result(10)
    with monkeypatch.context() as local:
        local.setenv("TZ", "JST-9")
        time.tzset()
        told = [line for line in jido("describe", fresh).out.splitlines() if "reminder" in line]
    time.tzset()
    found = json.loads(jido("describe", fresh, "--json").out)
    report = datetime.fromisoformat(found["due"]["report"])
    assert report.utcoffset() == timedelta(0)
    assert [line.split(": ")[0] for line in told] == ["  reminder report", "  reminder end"]
    assert told[0].startswith(f"  reminder report: {report.astimezone(timezone(timedelta(hours=9))):%Y-%m-%d %H:%M:%S} JST, in ")
    assert 2 * 86_400 < found["due_in_s"]["report"] <= 3 * 86_400


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "now"), (-0.4, "now"), (59.7, "in 1 min"), (-61, "1 min 1 s ago"), (7_500, "in 2 h 5 min"), (86_460, "in 1 d"), (9e7, "in 1,041 d 16 h")],
)
def test_how_far_away_a_moment_is(seconds: float, told: str) -> None:
    assert distance(seconds) == told


def test_a_value_of_the_configuration_is_set_shown_and_rolled_back(jido: Jido, running: NodeThread) -> None:
    assert jido("config", "set", "agents.default_timeout", "31").out.startswith("agents.default_timeout = 31.0")
    assert jido("config", "get", "agents.default_timeout").out == "31.0\n"
    assert "agents.default_timeout = 31.0" in jido("config", "get").out
    assert json.loads(jido("config", "get", "--json").out)["agents"]["default_timeout"] == 31
    assert "agents.default_timeout" in jido("config", "history").out
    assert jido("config", "rollback", "0").code == OK
    assert jido("config", "get", "agents.default_timeout", "--json").out == "30.0\n"
    refused = jido("config", "set", "agents.default_timeot", "31")
    assert (refused.code, "did you mean" in refused.err) == (FAILED, True)
    assert jido("config", "rollback", "99999").code == FAILED
    assert jido("config", "rollback", "first").code == USAGE


def test_events_are_listed_and_replayed(jido: Jido, running: NodeThread, fresh: str) -> None:
    for _ in range(3):
        jido("call", fresh, "add")
    replayed = jido("events", "replay", fresh, "--json").out.splitlines()
    assert [json.loads(line)["data"]["value"] for line in replayed] == [1, 2, 3]
    last = json.loads(replayed[-1])["position"]
    assert jido("events", "list", "counter.*", "--after", str(last - 1), "--limit", "1").out.startswith(str(last))
    assert json.loads(jido("events", "list", "--stream", fresh, "--json").out)["next"] is None
    assert jido("events", "list", "a..b").code == FAILED
    assert jido("events", "list", "--after", "-1").code == USAGE


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "counter.adedd"), "no events that fit counter.adedd\n"),
        (("list", "--stream", "Conter/a"), "no events in Conter/a\n"),
        (("list", "a.*", "--stream", "Conter/a", "--after", "3"), "no events that fit a.* in Conter/a after position 3\n"),
        (("replay", "Nope/x"), "no events in Nope/x\n"),
    ],
)
def test_where_there_are_no_events_it_is_said_beside_the_result(jido: Jido, running: NodeThread, arguments: tuple[str, ...], told: str) -> None:
    ran = jido("events", *arguments)
    assert (ran.code, ran.out, ran.err) == (OK, "", told)
    assert jido("events", *arguments, "--json").err == ""


def test_an_agent_of_which_nothing_is_stored_is_told_from_one_that_there_is(jido: Jido, running: NodeThread) -> None:
    jido("call", "Counter/somebody", "add")
    told = jido("describe", "Counter/somebdy").out
    assert "nothing is stored of it; did you mean Counter/somebody?" in told
    assert "state:" not in told
    assert json.loads(jido("describe", "Counter/somebdy", "--json").out)["near"] == ["somebody"]
    assert "nothing is stored" not in jido("describe", "Counter/somebody").out


def test_dead_letters_are_listed_redriven_and_cleared(jido: Jido, running: NodeThread) -> None:
    publishing = asyncio.run_coroutine_threadsafe(running.platform.events.publish("deaf.one", {"key": "k"}), running.loop)
    publishing.result(10)
    letters: list[Any] = []
    while not letters:
        letters = json.loads(jido("events", "dead-letters", "list", "--json").out)
    assert letters[0]["id"] in jido("events", "dead-letters", "list").out
    assert jido("events", "dead-letters", "redrive", letters[0]["id"]).code == FAILED
    assert jido("events", "dead-letters", "redrive", "nope").code == FAILED
    assert jido("events", "dead-letters", "clear", "--source", "evnt").code == FAILED
    assert jido("events", "dead-letters", "clear").out == "cleared: 1\n"
    none = jido("events", "dead-letters", "list")
    assert (none.out, none.err) == ("", "no dead letters\n")


def test_several_dead_letters_are_redriven_and_those_that_stay_are_named(jido: Jido, running: NodeThread) -> None:
    for key in "abcd":
        asyncio.run_coroutine_threadsafe(running.platform.events.publish("moody.one", {"key": key}), running.loop).result(10)
    letters: list[Any] = []
    while len(letters) < 4:
        letters = json.loads(jido("events", "dead-letters", "list", "--name", "Moody.heard", "--json").out)
    ids = {letter["agent"]: letter["id"] for letter in letters}
    a, b, c, d = (ids[f"Moody/{key}"] for key in "abcd")
    jido("call", "Moody/a", "cheer_up")
    some = jido("events", "dead-letters", "redrive", a, "nope", b)
    assert (some.code, some.out) == (FAILED, f"redriven: {a}\n")
    assert "2 of 3 dead letters weren't redriven" in some.err
    assert f"{b}: " in some.err and "not now" in some.err and "nope: there is no dead letter 'nope'" in some.err
    for key in "bc":
        jido("call", f"Moody/{key}", "cheer_up")
    rest = jido("events", "dead-letters", "redrive", "--name", "Moody.heard", "--json")
    assert (rest.code, json.loads(rest.out), json.loads(rest.err)["error"]["details"]["failed"].keys()) == (FAILED, {"redriven": [b, c]}, {d})
    jido("call", "Moody/d", "cheer_up")
    assert jido("events", "dead-letters", "redrive", "--source", "event", "--name", "Moody.heard").out == f"redriven: {d}\n"
    assert jido("events", "dead-letters", "redrive", "--all").err == "no dead letters\n"
    for wrong in ((), ("a", "--all"), ("a", "--source", "event"), ("--name", "x", "--all")):
        assert jido("events", "dead-letters", "redrive", *wrong).code == USAGE


# -- which node ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_without_a_node_every_command_says_how_to_start_one(jido: Jido, arguments: tuple[str, ...]) -> None:
    ran = jido(*arguments)
    assert (ran.code, ran.out) == (NO_NODE, "")
    assert "jido run" in ran.err


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_a_wrong_token_is_refused(jido: Jido, running: NodeThread, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("JIDO_TOKEN", "wrong")
    ran = jido(*arguments)
    assert (ran.code, ran.out) == (NO_NODE, "")
    assert "unauthorized" in ran.err


def test_a_node_is_chosen_by_name_or_url(jido: Jido, running: NodeThread, monkeypatch: pytest.MonkeyPatch) -> None:
    node.write(running.written._replace(name="two"))
    several = jido("ps")
    assert (several.code, "--node" in several.err, "two" in several.err) == (NO_NODE, True, True)
    assert jido("ps", "--node", "two").code == OK
    assert jido("ps", "--node", running.written.url).code == OK
    assert "did you mean 'two'" in jido("ps", "--node", "twoo").err
    for wrong in ("https://127.0.0.1:1", "http://", "http://127.0.0.1:99999", "http://127.0.0.1:0", "http://[::1", "ftp://x", "http://a/b"):
        assert jido("ps", "--node", wrong).code == USAGE, wrong
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert jido("ps", "--node", f"http://127.0.0.1:{nobody.getsockname()[1]}").code == NO_NODE
    monkeypatch.setenv("JIDO_NODE", "two")
    assert jido("ps").code == OK


def test_of_one_clusters_nodes_any_is_asked(jido: Jido, running: NodeThread) -> None:
    for name in ("one", "two"):
        node.write(running.written._replace(name=name, cluster="shop at nats://a:4222"))
    node.remove(running.written)
    assert jido("ps").code == OK
    node.write(running.written._replace(name="three", cluster="other at nats://a:4222"))
    assert "three" in jido("ps").err


def test_files_of_nodes_that_are_gone_are_removed(jido: Jido, running: NodeThread) -> None:
    gone = node.write(running.written._replace(name="gone", pid=2**22 + 1))
    assert jido("ps").code == OK
    assert not gone.exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o666, 0o604])
def test_a_file_that_others_may_read_is_left_aside(jido: Jido, running: NodeThread, mode: int) -> None:
    path = node.folder() / "one.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(mode)
    ran = jido("ps")
    assert (ran.code, "chmod 600" in ran.err) == (NO_NODE, True)


@pytest.mark.parametrize("content", NO_NODES_FILES)
def test_a_file_that_is_no_nodes_is_left_aside(jido: Jido, running: NodeThread, content: bytes) -> None:
    broken = node.folder() / "broken.json"
    broken.write_bytes(content)
    broken.chmod(0o600)
    assert jido("ps").code == OK


@pytest.mark.parametrize("says", NO_NODES_ANSWERS)
def test_something_else_that_listens_there_is_told_from_a_node(jido: Jido, says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            connection.recv(65536)
            connection.sendall(says)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        ran = jido("ps", "--node", f"http://127.0.0.1:{other.getsockname()[1]}")
        thread.join()
    assert (ran.code, ran.out) == (NO_NODE, "")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("drips", [False, True])
def test_a_node_that_hangs_is_an_error_in_bounded_time(running: NodeThread, drips: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = hung.accept()
            with connection:
                while drips and not ended.wait(0.05):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return
                ended.wait(20)

        thread = threading.Thread(target=drip)
        thread.start()
        where = running.written._replace(url=f"http://127.0.0.1:{hung.getsockname()[1]}")
        try:
            with pytest.raises(node.Failure, match="answered within 0") as failed:
                node.ask(where, "GET", "/v1/node", patience_s=0.3)
        finally:
            ended.set()
            thread.join()
    assert failed.value.exit_code == NO_NODE


# -- anything --------------------------------------------------------------------------------------------------------

GRAMMAR = "list get set Counter/a Counter add amount=1 --json --node --args --help - -- --limit -1 agents.max_live {} one"
WORDS = st.sampled_from([*COMMANDS, *GRAMMAR.split()])
WORD = WORDS | st.text(max_size=8).filter(lambda word: "\x00" not in word)
ASKERS = st.sampled_from(["call", "ps", "describe", "config", "nonsense", "--json", ""])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=ASKERS, arguments=st.lists(WORD, max_size=5))
def test_no_command_line_ends_in_a_traceback(jido: Jido, running: NodeThread, command: str, arguments: list[str]) -> None:
    arguments = [word for word in arguments if word != "-"]  # it would read this test's own input
    ran = jido(command, *arguments)
    assert ran.code in (OK, FAILED, USAGE, NO_NODE)
    assert "Traceback" not in ran.err
    assert "mistake in jido" not in ran.err
    assert ran.code == OK or ran.err or ran.out


def test_names_of_commands_and_options_are_suggested(jido: Jido) -> None:
    assert "did you mean 'call'" in jido("cal").err
    assert "--limit" in jido("ps", "--limi", "2").err
    assert "'list'" in jido("events", "lst").err
    assert "`jido config get` without a path prints all" in jido("config", "list").err
    assert "`jido config get` without a path prints all" in jido("config", "show").err
    assert "did you mean 'rollback'" in jido("config", "rolback").err
    assert "`jido ps --type Loan`" in jido("ps", "Loan").err
    assert "`jido describe Loan/ada`" in jido("ps", "Loan/ada").err
    assert "'clear'" in jido("events", "dead-letters", "claer").err


def test_the_version_and_the_help_are_told(jido: Jido) -> None:
    assert jido("--version").out.startswith("jidosystem ")
    assert jido().code == USAGE
    for words in (("--help",), ("-h",), ("events", "--help"), ("events", "dead-letters", "--help"), ("config", "get", "-h")):
        assert jido(*words).code == OK, words
        assert "Usage: jido" in jido(*words).out


def test_a_user_without_a_runtime_folder_has_their_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert node.folder() == tmp_path / "state" / "jidosystem"
    path = node.write(node.NodeFile("a/b", "http://127.0.0.1:1", os.getpid(), "x.py", TOKEN))
    assert path.parent == node.folder()
    assert node.running()[0][0].name == "a/b"
