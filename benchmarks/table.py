"""The table: each workload with its limit, its peers and its bars. The issue's "How fast, how small", row by row."""

from __future__ import annotations

from typing import NamedTuple

from .bars import Bar

OURS, PEERS = "ours", "peers"
BOTH_LOOPS = ("asyncio", "uvloop")


class Source(NamedTuple):
    """Where a figure comes from: a function of a module, run in one of the two environments."""

    name: str
    module: str
    function: str
    figure: str = ""
    environment: str = OURS
    loops: tuple[str, ...] = BOTH_LOOPS


class Row(NamedTuple):
    """One row. `must` and `aim` refer to limits and peers by their names."""

    name: str
    title: str
    unit: str
    ours: Source
    limits: tuple[Source, ...] = ()
    peers: tuple[Source, ...] = ()
    must: tuple[Bar, ...] = ()
    aim: tuple[Bar, ...] = ()
    lower: bool = False


class Growth(NamedTuple):
    """How a figure grows: one workload, a figure for each size."""

    name: str
    title: str
    unit: str
    ours: Source


def _ours(module: str, function: str, figure: str = "", *, loops: tuple[str, ...] = BOTH_LOOPS) -> Source:
    return Source("JidoSystem", f"benchmarks.ours.{module}", function, figure, loops=loops)


def _limit(name: str, module: str, function: str, *, loops: tuple[str, ...] = BOTH_LOOPS) -> Source:
    return Source(name, f"benchmarks.{module}", function, loops=loops)


def _limit_by_turns(module: str, function: str) -> Source:
    return Source("bare writer", f"benchmarks.ours.{module}", function, "bare writer")


def _peer(name: str, module: str, function: str, figure: str = "", *, loops: tuple[str, ...] = ("asyncio",)) -> Source:
    return Source(name, f"benchmarks.peers.{module}", function, figure, PEERS, loops)


ONE_LOOP = ("asyncio",)
RAW = "raw nats-py"

DIRECT = _limit("bare look-up and await", "bare", "direct_call")
DIRECT_100 = _limit("bare, 100 tasks", "bare", "direct_call_100")
TEXTBOOK = _limit("textbook actor", "bare", "textbook_actor")
EAGER = _limit("eager task a call", "bare", "eager_task")
ONE_WAY = _limit("bare deque", "bare", "one_way")
IDLE = _limit("bare object", "bare", "idle_object", loops=ONE_LOOP)
FAN_OUT = _limit("bare calls", "bare", "fan_out_100")
WRITER_1 = _limit_by_turns("durable", "call_1")
WRITER_64 = _limit_by_turns("durable", "call_64")
WRITER_HOT = _limit_by_turns("durable", "call_64_on_one")
WRITER_1000 = _limit_by_turns("durable", "call_1000")
WRITER_EVENTS = _limit_by_turns("events", "publish_64")
READ = _limit("bare read", "writer", "read_rows", loops=ONE_LOOP)
FSYNC = _limit("fsync of 4 KiB", "writer", "fsync_4k", loops=ONE_LOOP)
STATES = _limit("bare read of 10,000", "writer", "read_states", loops=ONE_LOOP)

XOSCAR = _peer("xoscar direct", "xoscar_", "ask_direct", loops=BOTH_LOOPS)
XOSCAR_100 = _peer("xoscar direct", "xoscar_", "ask_direct_100", loops=BOTH_LOOPS)
ASKS = (
    XOSCAR,
    _peer("xoscar by message", "xoscar_", "ask_message"),
    _peer("Erlang", "erlang", "ask"),
    _peer("Thespian", "thespian_", "ask"),
    _peer("Pykka", "pykka_", "ask"),
    _peer("AutoGen", "autogen_", "ask"),
    _peer("Ray", "ray_", "ask"),
)
ASKS_100 = (
    XOSCAR_100,
    _peer("xoscar by message", "xoscar_", "ask_message_100"),
    _peer("Erlang", "erlang", "ask_100"),
    _peer("Pykka", "pykka_", "ask_100"),
    _peer("AutoGen", "autogen_", "ask_100"),
)
ONE_WAYS = (
    _peer("xoscar direct", "xoscar_", "one_way"),
    _peer("Erlang", "erlang", "one_way"),
    _peer("Thespian", "thespian_", "one_way"),
    _peer("Pykka", "pykka_", "one_way"),
    _peer("Ray", "ray_", "one_way"),
)
SPAWNS = (
    _peer("Erlang", "erlang", "memory", "spawn"),
    _peer("xoscar", "xoscar_", "memory", "spawn"),
    _peer("Thespian", "thespian_", "memory", "spawn"),
    _peer("Pykka", "pykka_", "memory", "spawn"),
    _peer("AutoGen", "autogen_", "memory", "spawn"),
)
WEIGHTS = tuple(source._replace(figure="") for source in SPAWNS)
DURABLES_1 = (
    _peer("Erlang dets", "erlang", "dets_1"),
    _peer("eventsourcing", "durable", "eventsourcing_1"),
    _peer("DBOS", "durable", "dbos_1"),
    _peer("LangGraph", "durable", "langgraph_1"),
)
DURABLES_64 = (
    _peer("Erlang dets", "erlang", "dets_64"),
    _peer("eventsourcing", "durable", "eventsourcing_64"),
    _peer("DBOS", "durable", "dbos_64"),
    _peer("LangGraph", "durable", "langgraph_64"),
)


def rows(python: tuple[int, int]) -> tuple[Row, ...]:
    """Every row as it is judged on this Python."""
    eager = python >= (3, 12)
    call_bar = (Bar(1, of="xoscar direct"),) if eager else (Bar(1, of="textbook actor"),)
    call_limits = (DIRECT, EAGER, TEXTBOOK) if eager else (DIRECT, TEXTBOOK)
    call_aim = (Bar(600_000), Bar(1, of="Erlang"))
    return (
        Row("call-read", "call, one caller: read-only", "/s", _ours("calls", "read_only"), call_limits, ASKS, call_bar, call_aim),
        Row("call-same", "call, one caller: changes nothing", "/s", _ours("calls", "changes_nothing"), call_limits, ASKS, call_bar, call_aim),
        Row(
            "add", "add(1) in memory, one caller", "/s", _ours("calls", "add"),
            call_limits, ASKS, (Bar(200_000),), (Bar(1, of="xoscar direct"), Bar(313_000)),
        ),
        Row(
            "add-100", "add(1) in memory, 100 callers over 100 agents", "/s", _ours("calls", "add_100"),
            (DIRECT_100,), ASKS_100, (Bar(200_000),), (Bar(1, of="xoscar direct"), Bar(1, of="Erlang")),
        ),
        Row(
            "cast", "cast to one agent, add(1) in memory", "/s", _ours("calls", "cast"),
            (ONE_WAY,), ONE_WAYS, (Bar(300_000),) if eager else (), (Bar(600_000),) if eager else (),
        ),
        Row(
            "durable-1", "durable call, 1 caller", "/s", _ours("durable", "call_1"),
            (WRITER_1, FSYNC), DURABLES_1, (Bar(0.90, of="bare writer"),), (Bar(0.97, of="bare writer"),),
        ),
        Row(
            "durable-64", "durable call, 64 callers", "/s", _ours("durable", "call_64"),
            (WRITER_64,), DURABLES_64, (Bar(0.60, of="bare writer"),), (Bar(0.75, of="bare writer"),),
        ),
        Row(
            "durable-hot", "durable call, 64 callers on one agent", "/s", _ours("durable", "call_64_on_one"),
            (WRITER_HOT,), (), (Bar(20_000),), (Bar(40_000),),
        ),
        Row(
            "durable-1000", "durable call, 1,000 callers", "/s", _ours("durable", "call_1000"),
            (WRITER_1000,), (), (Bar(0.30, of="bare writer"),), (Bar(0.45, of="bare writer"),),
        ),
        Row(
            "activate-new", "activate 100,000 new agents, 1,000 callers", "/s", _ours("life", "activate_new"),
            (), SPAWNS, (Bar(50_000),), (Bar(150_000),),
        ),
        Row(
            "activate-stored", "activate 100,000 stored agents, 1,000 callers", "/s", _ours("life", "activate_stored"),
            (), (_peer("eventsourcing", "durable", "eventsourcing_back"),), (Bar(30_000),), (Bar(80_000),),
        ),
        Row(
            "weight", "memory of an idle live agent with three small fields (100,000)", "bytes", _ours("life", "weigh_100k", loops=ONE_LOOP),
            (IDLE,), WEIGHTS, (Bar(1_200, lower=True),), (Bar(750, lower=True),), lower=True,
        ),
        Row(
            "weight-million", "the same, 1,000,000 agents", "bytes", _ours("life", "weigh_1m", loops=ONE_LOOP),
            (IDLE,), WEIGHTS, (Bar(1_200, lower=True),), (Bar(750, lower=True),), lower=True,
        ),
        Row(
            "process-million", "the whole process with 1,000,000 live agents", "GiB", _ours("life", "weigh_1m", "process", loops=ONE_LOOP),
            (), (), (), (Bar(1_000_000_000 / 1024**3, lower=True),), lower=True,
        ),
        Row(
            "publish", "publish durable events, 64 publishers", "/s", _ours("events", "publish_64"),
            (WRITER_EVENTS,), (), (Bar(0.50, of="bare writer"),), (Bar(0.75, of="bare writer"),),
        ),
        Row(
            "fan-out", "deliver a stored event to 100 subscribers, deliveries", "/s", _ours("events", "fan_out_100"),
            (FAN_OUT,),
            (
                _peer("Erlang", "erlang", "fan_out_100"), _peer("blinker async", "emitters", "blinker_async", loops=BOTH_LOOPS),
                _peer("pyee sync", "emitters", "pyee_sync"), _peer("AutoGen", "autogen_", "fan_out_100"),
            ),
            (Bar(2_000_000),), (Bar(5_000_000),),
        ),
        Row("replay", "replay (read_all), events", "/s", _ours("events", "replay"), (READ,), (), (Bar(300_000),), (Bar(600_000),)),
        Row("follow", "follow from the beginning, events", "/s", _ours("events", "follow"), (READ,), (), (Bar(300_000),), (Bar(600_000),)),
        Row(
            "restart", "restart with 1,000,000 stored agents, exec to the first answer", "s", _ours("life", "restart_1m", loops=ONE_LOOP),
            (), (), (Bar(0.7, lower=True),), (Bar(0.3, lower=True),), lower=True,
        ),
        Row(
            "residents", "restart, 10,000 resident agents back", "s", _ours("life", "residents_10k", loops=ONE_LOOP),
            (STATES,), (), (Bar(1.5, lower=True),), (Bar(0.5, lower=True),), lower=True,
        ),
        Row("latency-p50", "10,000 busy agents at half load, p50", "ms", _ours("latency", "half_load", "p50"), lower=True),
        Row(
            "latency-p99", "10,000 busy agents at half load, p99", "ms", _ours("latency", "half_load", "p99"),
            (), (), (Bar(10, lower=True),), (Bar(3, lower=True),), lower=True,
        ),
        Row(
            "import", "import of the public names", "ms", _ours("startup", "import_time", loops=ONE_LOOP),
            (), (), (Bar(150, lower=True),), (Bar(80, lower=True),), lower=True,
        ),
        Row(
            "ready", "Platform ready on SQLite", "ms", _ours("startup", "platform_ready", loops=ONE_LOOP),
            (), (), (Bar(100, lower=True),), (Bar(30, lower=True),), lower=True,
        ),
        _on_nats("cluster-ask-1", "call to another node, nothing changed, 1 caller", "ask_1", 1 / 1.4, 1 / 1.15),
        _on_nats("cluster-ask-64", "the same, 64 callers", "ask_64", 0.65, 0.85),
        _on_nats("cluster-durable-64", "durable call on the owning node, 64 callers over 64 agents, 500 bytes", "durable_64", 0.85, 1.0),
        _on_nats("cluster-claims", "claims of 10,000 agents", "claims", 0, 0, (Bar(8_000),), (Bar(15_000),)),
        _on_nats("cluster-publish", "durable publish, 64 publishers", "publish_64", 0.80, 1.2),
        Row(
            "cluster-start", "three NATS servers and three nodes, to the first durable call", "s", _ours("cluster", "start", loops=ONE_LOOP),
            (), (), (Bar(10, lower=True),), (Bar(5, lower=True),), lower=True,
        ),
        Row(
            "cluster-join", "one more node, to a durable call", "s", _ours("cluster", "start", "one more", loops=ONE_LOOP),
            (), (), (Bar(2, lower=True),), (Bar(0.7, lower=True),), lower=True,
        ),
        _failing("cluster-kill", "SIGKILL of a node, to the first answer of each of its agents, p50", "kill_node", 3.5, None),
        _failing("cluster-kill-p99", "the same, p99", "kill_node", 5, 4, "p99"),
        _failing("cluster-kill-residents", "SIGKILL of a node with 10,000 resident agents, all back", "kill_residents", 8, 5),
        _failing("cluster-kill-leader", "SIGKILL of the NATS server that leads the records, longest stall", "kill_leader", 11, None),
        _failing("cluster-roll", "rolling restart of three nodes under load, longest stall", "roll", 1, 0.3),
        _command("cli-help", "jido --help", "help_time", 250),
        _command("cli-call", "jido call", "call_time", 350),
        _command("cli-ps", "jido ps on 100,000 agents", "ps_time", 500),
        _command("cli-dev", "jido dev, back after a save", "reload_time", 1_000),
        Row("flights", "flights, whole year, durable, 1,000 callers", "/s", _ours("flights", "year"), (), (), (Bar(3_000),), (Bar(6_000),)),
    )  # fmt: skip


def _failing(name: str, title: str, function: str, must: float, aim: float | None, figure: str = "") -> Row:
    """A row of what fails; seconds."""
    ours, aims = _ours("failing", function, figure, loops=ONE_LOOP), () if aim is None else (Bar(aim, lower=True),)
    return Row(name, title, "s", ours, (), (), (Bar(must, lower=True),), aims, lower=True)


def _on_nats(
    name: str, title: str, function: str, must: float, aim: float, bars: tuple[Bar, ...] = (), aims: tuple[Bar, ...] = ()
) -> Row:  # fmt: skip
    """A row of the cluster, against nats-py doing the same."""
    limit = Source(RAW, "benchmarks.ours.cluster", function, RAW)
    return Row(name, title, "/s", _ours("cluster", function), (limit,), (), bars or (Bar(must, of=RAW),), aims or (Bar(aim, of=RAW),))


def _command(name: str, title: str, function: str, bar_ms: int) -> Row:
    return Row(name, title, "ms", _ours("cli", function, loops=ONE_LOOP), (), (), (Bar(bar_ms, lower=True),), (), lower=True)


def _grows(name: str, title: str, unit: str, function: str, figure: str = "") -> Growth:
    return Growth(name, title, unit, _ours("growth", function, figure, loops=ONE_LOOP))


GROWTH = (
    _grows("grow-agents", "agents: stored ones called for the first time", "agents/s", "agents", "activate"),
    _grows("grow-agents-live", "agents: live ones called, one after the other", "calls/s", "agents", "call"),
    _grows("grow-state", "size of the state: durable add(1), 64 callers", "calls/s", "state", "add"),
    _grows("grow-state-read", "size of the state: read-only calls, one caller", "calls/s", "state", "get"),
    _grows("grow-mailbox", "calls that wait in one mailbox, in memory", "calls/s", "mailbox"),
    _grows("grow-subscribers", "live subscribers of an event in memory", "deliveries/s", "subscribers"),
    _grows("grow-log-append", "events in the log: publish, 64 publishers", "events/s", "log", "append"),
    _grows("grow-log-read", "events in the log: the newest read", "events/s", "log", "read"),
    _grows("grow-log-activate", "events in the log: stored agents called for the first time", "agents/s", "log", "activate"),
)
